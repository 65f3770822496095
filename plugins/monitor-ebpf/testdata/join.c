/* join HOW [NAMESPACE]: prints its thread's number and waits for a line, in
 * which time somebody may move it to another cgroup; joins the namespace, if one
 * is given; calls umask. HOW is "itself", "child" (which makes the call) or
 * "thread" (which prints, waits and makes the call; the others call alarm). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *namespace;

static void *join(void *child)
{
	char line[2];

	printf("%d\n", gettid());
	fflush(stdout);
	if (read(0, line, sizeof(line)) < 1)
		_exit(1);
	/* A thread that shares its folders with others can't join mounts. */
	if (namespace && (unshare(CLONE_FS) || setns(open(namespace, O_RDONLY), 0))) {
		perror("join");
		_exit(1);
	}
	if (child && fork()) {
		wait(NULL);
		return NULL;
	}
	umask(022);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	namespace = argc > 2 ? argv[2] : NULL;
	if (strcmp(argv[1], "thread")) {
		join(!strcmp(argv[1], "child") ? argv : NULL);
		return 0;
	}
	if (pthread_create(&thread, NULL, join, NULL) || pthread_join(thread, NULL))
		return 1;
	alarm(0);
	return 0;
}
