/* Uses what C libraries try with a newer call first. Prints what fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("%s: %s\n", #what, strerror(errno)); bad = 1; } } while (0)

static void *thread(void *p) { *(int *)p = 1; return 0; }

int main(void)
{
	extern char **environ;
	int ran = 0, status = -1, fds[2];
	pid_t pid;
	pthread_t t;
	char b[8];
	struct iovec v = {b, sizeof b};
	CHECK(!(errno = pthread_create(&t, 0, thread, &ran)) && !pthread_join(t, 0) && ran);
	CHECK(!(errno = posix_spawn(&pid, "/bin/true", 0, 0, (char *[]){"true", 0}, environ)) && waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(faccessat(AT_FDCWD, "/etc/passwd", R_OK, AT_EACCESS) == 0);
	CHECK(pipe2(fds, O_CLOEXEC) == 0);
	CHECK(dup3(fds[0], 20, O_CLOEXEC) == 20);
	CHECK(epoll_create1(0) >= 0);
	CHECK(eventfd(0, 0) >= 0);
	CHECK(inotify_init1(0) >= 0);
	sigset_t s;
	sigemptyset(&s);
	CHECK(signalfd(-1, &s, 0) >= 0);
	struct rlimit r;
	CHECK(getrlimit(RLIMIT_NOFILE, &r) == 0);
	struct stat st;
	CHECK(stat("/etc/passwd", &st) == 0 && st.st_size > 0);
	int fd = open("/etc/passwd", O_RDONLY);
	CHECK(fd >= 0);
#ifdef __GLIBC__
	struct statx sx;
	CHECK(statx(AT_FDCWD, "/etc/passwd", 0, STATX_SIZE, &sx) == 0 && sx.stx_size == st.st_size);
	CHECK(preadv2(fd, &v, 1, 0, 0) == sizeof b);
	CHECK(arc4random() + arc4random() + arc4random() != 0);
	CHECK((closefrom(10), fcntl(20, F_GETFD)) == -1);
#else
	CHECK(preadv(fd, &v, 1, 0) == sizeof b);
#endif
	if (!bad)
		puts("all well");
	return bad;
}
