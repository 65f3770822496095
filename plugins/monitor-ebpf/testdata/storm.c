/* storm COUNT JOBS PROGRAM: executes a program COUNT times, JOBS at once. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void work(long count, char *program)
{
	char *argv[] = {program, NULL}, *env[] = {NULL};

	while (count-- > 0) {
		pid_t pid = vfork();

		if (pid == 0) {
			execve(program, argv, env);
			_exit(127);
		}
		if (pid < 0) {
			perror("vfork");
			exit(1);
		}
		waitpid(pid, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	long count = atol(argv[1]), jobs = atol(argv[2]);

	for (long i = 0; i < jobs; i++) {
		if (fork() == 0) {
			work(count / jobs + (i < count % jobs), argv[3]);
			exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	return 0;
}
