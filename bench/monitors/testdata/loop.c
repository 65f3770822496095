/* loop PROGRAM: for each line "exec COUNT" on standard input, forks and executes
 * the program so often, one after the other; for each "call COUNT" it makes so
 * many system calls that do next to nothing. Answers with a line: nanoseconds of
 * processor time, of itself and of what it executed, and of time. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
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

static long long nanos(struct timeval t) { return t.tv_sec * 1000000000LL + t.tv_usec * 1000LL; }

static long long processor_time(void)
{
	struct rusage own, executed;

	getrusage(RUSAGE_SELF, &own);
	getrusage(RUSAGE_CHILDREN, &executed);
	return nanos(own.ru_utime) + nanos(own.ru_stime) + nanos(executed.ru_utime) + nanos(executed.ru_stime);
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long long processor, time;
	char what[8];
	long count;

	if (argc != 2)
		return 2;
	while (scanf("%7s %ld", what, &count) == 2) {
		processor = processor_time();
		time = now();
		if (!strcmp(what, "exec")) {
			if (execute(argv[1], count))
				return 1;
		} else {
			while (count-- > 0)
				syscall(SYS_getppid);
		}
		time = now() - time;
		printf("%lld %lld\n", processor_time() - processor, time);
		fflush(stdout);
	}
	return 0;
}
