/* enter NAMESPACE PROGRAM: goes into a mount namespace, says so, and executes a
 * program there once it is told to. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char byte;

	if (argc != 3 || setns(open(argv[1], O_RDONLY), CLONE_NEWNS))
		return 1;
	if (write(1, "in\n", 3) != 3 || read(0, &byte, 1) != 1)
		return 1;
	execl(argv[2], argv[2], "600", (char *)NULL);
	return 1;
}
