/* overflow HOW COUNT PROGRAM DIR: goes beyond a limit of the monitor.
 *  number  COUNT calls with numbers of another table (the x32 ABI)
 *  ranges  maps COUNT pieces of PROGRAM in a row, makes all executable at once
 *  images  executes COUNT files below DIR, links to PROGRAM
 *  places  COUNT refused calls, each from another address
 *  path    executes a link to PROGRAM below COUNT nested folders of DIR */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int numbers(long count)
{
	for (long i = 0; i < count; i++)
		syscall(0x40000000 + SYS_getpid);
	return 0;
}

/* Two pieces beside each other are of different places in the file, so that the
 * kernel keeps them apart. */
static int ranges(long count, const char *program)
{
	int fd = open(program, O_RDONLY);
	char *at = mmap(NULL, count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (long i = 0; i < count; i++)
		if (mmap(at + i * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, i % 2 * 2 * PAGE) == MAP_FAILED)
			return fail("mmap");
	return mprotect(at, count * PAGE, PROT_READ | PROT_EXEC) ? fail("mprotect") : 0;
}

static int run(char *file)
{
	char *args[] = {file, NULL}, *env[] = {NULL};
	int status = -1;
	pid_t pid = vfork();

	if (pid == 0) {
		execve(file, args, env);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid || status;
}

static int images(long count, const char *program, const char *dir)
{
	char file[PAGE];

	for (long i = 0; i < count; i++) {
		snprintf(file, sizeof(file), "%s/%ld", dir, i);
		if (link(program, file) || run(file))
			return fail(file);
	}
	return 0;
}

static int places(long count)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sethostname, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, code};
	const char call[] = {0x0f, 0x05, (char)0xc3}; /* syscall; ret */
	char *at = mmap(NULL, count * sizeof(call), PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		return fail("prepare");
	for (long i = 0; i < count; i++) {
		long nr = SYS_sethostname;
		char *site = memcpy(at + i * sizeof(call), call, sizeof(call));

		asm volatile("call *%1" : "+a"(nr) : "r"(site), "D"(0), "S"(0) : "rcx", "r11", "memory");
	}
	return 0;
}

static int nested(long count, const char *program, const char *dir)
{
	char name[251], *args[] = {"nested", NULL}, *env[] = {NULL};
	int source = open(program, O_RDONLY), target;
	struct stat st;

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	if (chdir(dir))
		return fail(dir);
	for (long i = 0; i < count; i++)
		if (mkdir(name, 0755) || chdir(name))
			return fail("mkdir");
	target = open("x", O_CREAT | O_WRONLY, 0755);
	fstat(source, &st);
	if (copy_file_range(source, NULL, target, NULL, st.st_size, 0) != st.st_size)
		return fail("copy");
	close(target);
	execve("./x", args, env);
	return fail("execve");
}

int main(int argc, char **argv)
{
	long count = atol(argv[2]);

	if (!strcmp(argv[1], "number"))
		return numbers(count);
	if (!strcmp(argv[1], "ranges"))
		return ranges(count, argv[3]);
	if (!strcmp(argv[1], "images"))
		return images(count, argv[3], argv[4]);
	if (!strcmp(argv[1], "places"))
		return places(count);
	return nested(count, argv[3], argv[4]);
}
