/* below DIR NAME: executes NAME relative to an open folder. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char *args[] = {argv[2], NULL}, *env[] = {NULL};

	syscall(SYS_execveat, open(argv[1], O_PATH), argv[2], args, env, 0);
	perror("execveat");
	return 1;
}
