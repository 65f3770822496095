/* churn ROUNDS FILE...: a thread for each file maps it executable and unmaps it
 * again, ROUNDS times, while all change the same address space; the last
 * mapping of each is made executable by mprotect. All end together. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static long rounds;
static pthread_barrier_t end;

static void *work(void *arg)
{
	int fd = open(arg, O_RDONLY);
	void *p;

	for (long i = 0; i < rounds; i++) {
		p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED)
			abort();
		munmap(p, 4096);
	}
	p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ | PROT_EXEC))
		abort();
	pthread_barrier_wait(&end);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[64];

	rounds = atol(argv[1]);
	pthread_barrier_init(&end, NULL, argc - 2);
	for (int i = 2; i < argc; i++)
		pthread_create(&t[i], NULL, work, argv[i]);
	for (int i = 2; i < argc; i++)
		pthread_join(t[i], NULL);
	return 0;
}
