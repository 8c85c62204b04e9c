/* The CNI plugin as the runtime calls it: hand the request to this node's agent.
 *
 * The same relay as bin/pycni, without an interpreter's start-up: one static program, libc only.
 * Without an agent, or when it does not answer in time, it becomes `pycni-engine`, which lies
 * beside it; where there is none, see alone.c.  Wire format: see bin/pycni-relay.py.
 *
 *     cd relay && cc -static -Os -s -Wall -Wextra -o pycni *.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "relay.h"

extern char **environ;

void die(const char *message)
{
	dprintf(1, "{\"cniVersion\": \"1.0.0\", \"code\": 5, \"msg\": \"%s\"}", message);
	_exit(1);
}

static void reserve(struct buffer *b, size_t more)
{
	if (b->size - b->length >= more)
		return;
	b->size = (b->length + more) * 2;
	b->data = realloc(b->data, b->size);
	if (!b->data)
		die("the relay is out of memory: try again");
}

static void append(struct buffer *b, const char *data, size_t length)
{
	reserve(b, length);
	memcpy(b->data + b->length, data, length);
	b->length += length;
}

/* Read up to the end; -1 when reading fails (or takes longer than a socket's time-out). */
static int read_all(int fd, struct buffer *b)
{
	for (;;) {
		reserve(b, 65536);
		ssize_t n = read(fd, b->data + b->length, 65536);
		if (n == 0)
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		b->length += (size_t)n;
	}
}

int write_all(int fd, const char *data, size_t length)
{
	while (length) {
		ssize_t n = write(fd, data, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		length -= (size_t)n;
	}
	return 0;
}

/* --- the agent ------------------------------------------------------------------------------ */

static int connect_agent(const struct hints *hints)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = hints->timeout};
	int length = snprintf(address.sun_path, sizeof address.sun_path, "%s/cni.sock",
			      hints->run_dir);
	if (length < 0 || (size_t)length >= sizeof address.sun_path)
		return -1;
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -1;
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
	if (connect(s, (struct sockaddr *)&address, sizeof address)) {
		close(s);
		return -1;
	}
	return s;
}

static int send_request(int s, struct buffer *request, int netns)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec part = {request->data, request->length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (netns >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof control;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &netns, sizeof netns);
	}
	ssize_t sent = sendmsg(s, &message, MSG_NOSIGNAL);
	if (sent < 0)
		return -1;
	if (write_all(s, request->data + sent, request->length - (size_t)sent))
		return -1;
	return shutdown(s, SHUT_WR);
}

static void ask_agent(const struct hints *hints, struct buffer *stdin_copy)
{
	struct buffer request = {0}, answer = {0};
	int netns = -1;
	append(&request, "\0\0\0\0", 4);
	for (char **e = environ; *e; e++) {
		if (strncmp(*e, "CNI_", 4))
			continue;
		append(&request, *e, strlen(*e) + 1);
		if (!strncmp(*e, "CNI_NETNS=", 10) && (*e)[10])
			netns = open(*e + 10, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	}
	size_t length = request.length - 4;
	for (int i = 0; i < 4; i++)
		request.data[i] = (char)(length >> (24 - 8 * i));
	append(&request, stdin_copy->data, stdin_copy->length);
	/* Last: the other end wakes now, and finds all of it when it looks. */
	int s = connect_agent(hints);
	if (s < 0)
		return;
	if (send_request(s, &request, netns) || read_all(s, &answer) || !answer.length)
		return;
	write_all(1, answer.data + 1, answer.length - 1);
	_exit((unsigned char)answer.data[0]);
}

static void run_engine(char **argv, struct buffer *stdin_copy, const struct hints *hints)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
	if (length < 0)
		die("no agent answers, and /proc is not mounted");
	path[length] = 0;
	strcpy(strrchr(path, '/') + 1, "pycni-engine");
	int copy = memfd_create("stdin", 0);
	if (copy < 0 || write_all(copy, stdin_copy->data, stdin_copy->length) ||
	    lseek(copy, 0, SEEK_SET) || dup2(copy, 0) < 0)
		die("no agent answers, and the request can't be handed to the engine");
	argv[0] = path;
	execv(path, argv);
	answer_alone(hints);
	die("no agent answers, and pycni-engine beside the plugin can't be started:"
	    " run install.sh again");
}

int main(int argc, char **argv)
{
	struct buffer input = {0};
	static struct hints hints = {.run_dir = DEFAULT_RUN_DIR, .timeout = DEFAULT_TIMEOUT_S};
	signal(SIGPIPE, SIG_IGN); /* an agent that dies is an error code, not our end */
	if (!getenv("CNI_COMMAND") && argc > 1)
		run_engine(argv, &input, &hints); /* a person asks for --help or --version */
	if (read_all(0, &input))
		die("standard input can't be read");
	read_hints(&input, &hints);
	ask_agent(&hints, &input);
	run_engine(argv, &input, &hints);
	return 1;
}
