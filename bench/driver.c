/* Call a CNI plugin many times, by several callers at once, and say how long each call took.
 *
 *     driver CALLERS COUNT VERB EXECUTABLE DIRECTORY [NAMESPACE]
 *
 * Call number i gets DIRECTORY/i.in as standard input; its output goes to DIRECTORY/i.out.  One
 * line is printed for each call: its number, exit status and milliseconds.  With a Kubernetes
 * NAMESPACE the calls name pods of it, pod0 and so on, as a kubelet's runtime does.  In C, because what
 * starts the plugins must cost little beside them: all share the same processors.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 4096

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static pid_t start(char **argv, int number)
{
	char verb[32], id[48], netns[64], args[128], in[4096], out[4096];
	snprintf(verb, sizeof verb, "CNI_COMMAND=%s", argv[3]);
	snprintf(id, sizeof id, "CNI_CONTAINERID=bench%04d", number);
	snprintf(netns, sizeof netns, "CNI_NETNS=/run/netns/pod%d", number);
	snprintf(args, sizeof args, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=pod%d",
		 argv[6] ? argv[6] : "", number);
	snprintf(in, sizeof in, "%s/%d.in", argv[5], number);
	snprintf(out, sizeof out, "%s/%d.out", argv[5], number);
	char *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_IFNAME=eth0",
			       "CNI_PATH=/run/bench/bin", verb, id, netns,
			       argv[6] ? args : NULL, NULL};
	char *arguments[] = {argv[4], NULL};
	posix_spawn_file_actions_t files;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, in, O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	pid_t pid;
	int error = posix_spawn(&pid, argv[4], &files, NULL, arguments, environment);
	posix_spawn_file_actions_destroy(&files);
	if (error) {
		fprintf(stderr, "cannot start %s: %s\n", argv[4], strerror(error));
		exit(1);
	}
	return pid;
}

int main(int argc, char **argv)
{
	static struct {
		pid_t pid;
		int number;
		double began;
	} running[MOST];
	if (argc != 6 && argc != 7) {
		fprintf(stderr, "usage: driver CALLERS COUNT VERB EXECUTABLE DIRECTORY [NAMESPACE]\n");
		return 2;
	}
	int callers = atoi(argv[1]), count = atoi(argv[2]), next = 0, alive = 0;
	if (callers < 1 || callers > MOST)
		return 2;
	double first = now_ms();
	for (;;) {
		for (int i = 0; i < callers && next < count; i++) {
			if (running[i].pid)
				continue;
			running[i].number = next;
			running[i].began = now_ms();
			running[i].pid = start(argv, next++);
			alive++;
		}
		if (!alive)
			break;
		int status;
		pid_t pid = waitpid(-1, &status, 0);
		if (pid < 0)
			return 1;
		for (int i = 0; i < callers; i++) {
			if (running[i].pid != pid)
				continue;
			printf("%d %d %.4f\n", running[i].number,
			       WIFEXITED(status) ? WEXITSTATUS(status) : 128,
			       now_ms() - running[i].began);
			running[i].pid = 0;
			alive--;
		}
	}
	printf("total 0 %.4f\n", now_ms() - first);
	return 0;
}
