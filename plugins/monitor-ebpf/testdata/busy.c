/* busy FILE: makes a mapping of the file executable while other threads keep
 * changing the same address space, and ends at once. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (16 << 20)

static pthread_barrier_t begin;

static void *change(void *arg)
{
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		abort();
	madvise(p, SIZE, MADV_NOHUGEPAGE);
	pthread_barrier_wait(&begin);
	for (;;) {
		mprotect(p, SIZE, PROT_READ);
		mprotect(p, SIZE, PROT_READ | PROT_WRITE);
	}
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	void *p;

	if (argc != 2)
		return 2;
	p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, open(argv[1], O_RDONLY), 0);
	pthread_barrier_init(&begin, NULL, 5);
	for (int i = 0; i < 4; i++)
		pthread_create(&t, NULL, change, NULL);
	pthread_barrier_wait(&begin);
	if (mprotect(p, 4096, PROT_READ | PROT_EXEC))
		abort();
	_exit(0);
}
