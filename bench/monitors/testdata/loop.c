/* loop exec COUNT PROGRAM: waits for a byte on standard input, then forks and
 * executes the program COUNT times, one after the other.
 * loop call COUNT: makes COUNT system calls that do next to nothing. */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int execute(char *program, long count)
{
	char *args[] = {program, NULL}, *env[] = {NULL};

	while (count-- > 0) {
		pid_t pid = fork();

		if (pid == 0) {
			execve(program, args, env);
			_exit(127);
		}
		if (pid < 0)
			return 1;
		waitpid(pid, NULL, 0);
	}
	return 0;
}

int main(int argc, char **argv)
{
	long count = atol(argv[2]);
	char byte;

	if (read(0, &byte, 1) != 1)
		return 1;
	if (!strcmp(argv[1], "exec"))
		return execute(argv[3], count);
	while (count-- > 0)
		syscall(SYS_getppid);
	return 0;
}
