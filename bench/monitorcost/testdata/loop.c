/* loop PROGRAM COUNT: waits for a byte on standard input, then executes the
 * program COUNT times, one after the other. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char *args[] = {argv[1], NULL}, *env[] = {NULL}, byte;
	long count = atol(argv[2]);

	if (read(0, &byte, 1) != 1)
		return 1;
	while (count-- > 0) {
		pid_t pid = fork();

		if (pid == 0) {
			execve(argv[1], args, env);
			_exit(127);
		}
		if (pid < 0)
			return 1;
		waitpid(pid, NULL, 0);
	}
	return 0;
}
