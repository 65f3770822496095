/*
 * The server of a test image: threads answer lines over TCP until SIGTERM.
 * Lines: "time", "host", "file", "quit".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define PORT 9000
#define BACKLOG 64

static int listener;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void answer_time(FILE *out)
{
	char text[64];
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(text, sizeof(text), "%FT%T", &tm);
	fprintf(out, "%s\n", text);
}

static void answer_host(FILE *out)
{
	struct utsname u;

	if (uname(&u) < 0)
		fprintf(out, "error\n");
	else
		fprintf(out, "%s %s\n", u.sysname, u.release);
}

/* Writes a file, reads it back and removes it. */
static void answer_file(FILE *out)
{
	char name[] = "/tmp/musl-XXXXXX";
	char text[32] = "";
	int fd = mkstemp(name);
	FILE *f;

	if (fd < 0) {
		fprintf(out, "error\n");
		return;
	}
	if (write(fd, "written\n", 8) != 8 || fsync(fd) < 0)
		fprintf(out, "error\n");
	close(fd);
	f = fopen(name, "r");
	if (f) {
		if (fgets(text, sizeof(text), f))
			fputs(text, out);
		fclose(f);
	}
	unlink(name);
}

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	FILE *in = fdopen(fd, "r");
	FILE *out = fdopen(dup(fd), "w");
	char line[128];

	while (in && out && fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\r\n")] = 0;
		if (!strcmp(line, "time"))
			answer_time(out);
		else if (!strcmp(line, "host"))
			answer_host(out);
		else if (!strcmp(line, "file"))
			answer_file(out);
		else if (!strcmp(line, "quit"))
			break;
		else
			fprintf(out, "unknown\n");
		fflush(out);
	}
	if (in)
		fclose(in);
	if (out)
		fclose(out);
	return NULL;
}

static void on_term(int signal)
{
	(void)signal;
	close(listener);
	_exit(0);
}

static void open_listener(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int on = 1;

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0)
		die("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("bind");
	if (listen(listener, BACKLOG) < 0)
		die("listen");
}

int main(void)
{
	struct sigaction sa = {.sa_handler = on_term};
	struct epoll_event ev = {.events = EPOLLIN};
	int ep;

	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	open_listener();
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) < 0)
		die("epoll");
	printf("serving on %d\n", PORT);
	fflush(stdout);
	for (;;) {
		pthread_t thread;
		int fd;

		if (epoll_wait(ep, &ev, 1, -1) < 0) {
			if (errno == EINTR)
				continue;
			die("epoll_wait");
		}
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) != 0)
			close(fd);
		else
			pthread_detach(thread);
	}
}
