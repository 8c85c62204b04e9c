/*
 * The first process of a pod, for the lab's Kubernetes: it holds the pod's namespaces, and where the
 * pod's containers share its process ids it buries orphans.  Ends by SIGINT or SIGTERM.
 */
#include <signal.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t awaited;
	int number;

	sigemptyset(&awaited);
	sigaddset(&awaited, SIGINT);
	sigaddset(&awaited, SIGTERM);
	sigaddset(&awaited, SIGCHLD);
	/* The kernel drops what a first process neither handles nor blocks. */
	if (sigprocmask(SIG_BLOCK, &awaited, 0))
		return 1;
	while (!sigwait(&awaited, &number)) {
		if (number != SIGCHLD)
			return 0;
		while (waitpid(-1, 0, WNOHANG) > 0)
			;
	}
	return 1;
}
