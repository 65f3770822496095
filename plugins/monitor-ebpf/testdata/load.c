/* load HOW FILE...: makes files executable in memory: "dlopen", "mmap",
 * "mprotect" (mapped for reading first), "read" (mapped, never executable). */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int load(const char *how, const char *file)
{
	int prot = strcmp(how, "mmap") ? PROT_READ : PROT_READ | PROT_EXEC;
	void *p;
	int fd;

	if (!strcmp(how, "dlopen"))
		return !dlopen(file, RTLD_NOW);
	fd = open(file, O_RDONLY);
	if (fd < 0)
		return 1;
	p = mmap(NULL, 8192, prot, MAP_PRIVATE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return 1;
	return !strcmp(how, "mprotect") && mprotect(p, 8192, PROT_READ | PROT_EXEC);
}

int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		if (load(argv[1], argv[i])) {
			perror(argv[i]);
			return 1;
		}
	}
	return 0;
}
