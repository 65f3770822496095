//go:build ignore

/*
 * An exec storm that knows what it executed. One static program without a C
 * library, so that it runs in every container and starts in no time:
 *
 *   storm                            ends at once: what a storm executes
 *   storm c DIR TOKEN LEVEL          a link of a deep tree of processes
 *   storm r DIR TOKEN RATE COUNT MILLIS JOBS NAMES LONGS STEPS DEPTH THREADS
 *
 * The last waits for a byte (or the end) of its standard input, then executes
 * copies of itself until COUNT or MILLIS is reached (0: no such limit), RATE a
 * second (0: as fast as it goes) from JOBS processes at once:
 *
 *   DIR/TOKEN-n0 ...        NAMES files, one after the other
 *   DIR/xxx.../TOKEN-l0 ... LONGS files below STEPS folders with long names
 *   DIR/TOKEN-t0 ...        each the parent of the one before, DEPTH deep
 *   DIR/TOKEN-h0            from a thread of a process with THREADS threads
 *
 * In the end it writes what it executed: "KIND INDEX COUNT" for each file, then
 * "failed COUNT", "ns NANOSECONDS" and "end".
 */
#include "syscalls.h"

#define MAX_FILES 65536
#define PATH_SIZE 4096
#define STEP_SIZE 250
#define MAX_THREADS 64
#define STACK_SIZE 4096

enum { DIR = 2, TOKEN, RATE, COUNT, MILLIS, JOBS, NAMES, LONGS, STEPS, DEPTH, THREADS, ARGS };

/* Shared by the jobs. */
struct shared {
	u64 begin, count, failed;
	u32 files[MAX_FILES]; /* names, long ones, tree, threads */
};

static struct shared *shared;
static char **args;
static u64 number[ARGS];
static char path[PATH_SIZE];

static u64 parse(const char *s)
{
	u64 n = 0;

	while (*s >= '0' && *s <= '9')
		n = n * 10 + (u64)(*s++ - '0');
	return n;
}

static char *append(char *at, const char *s)
{
	while (*s && at < path + PATH_SIZE - 1)
		*at++ = *s++;
	*at = 0;
	return at;
}

/* Writes the digits of n to the end of a buffer and returns where they begin. */
static char *digits(char *end, u64 n)
{
	*--end = 0;
	do
		*--end = (char)('0' + n % 10);
	while (n /= 10);
	return end;
}

static void make_path(const char *dir, const char *token, char kind, u64 index, u64 steps)
{
	char buffer[24], mark[3] = {'-', kind, 0}, *at = append(path, dir);

	while (steps--) {
		at = append(at, "/");
		for (int i = 0; i < STEP_SIZE && at < path + PATH_SIZE - 1; i++)
			*at++ = 'x';
		*at = 0;
	}
	at = append(append(append(at, "/"), token), mark);
	append(at, digits(buffer + sizeof(buffer), index));
}

/* Executes path with some arguments in a new process and waits for its end.
 * Returns whether all of it went well. The new process shares our memory until
 * it executes. */
static int run(char *const argv[])
{
	static char *const none[] = {0};
	volatile int executed = 1;
	int status = -1;
	long pid = sys_vfork();

	if (pid == 0) {
		sys_execve(path, argv, none);
		executed = 0;
		sys_exit_group(127);
	}
	if (pid < 0 || sys_wait4(pid, &status) != pid)
		return 0;
	return executed && status == 0;
}

static int run_leaf(void)
{
	char *argv[] = {path, 0};

	return run(argv);
}

static int run_chain(char *dir, char *token, u64 level)
{
	char buffer[24];
	char *argv[] = {path, "c", dir, token, digits(buffer + sizeof(buffer), level), 0};

	make_path(dir, token, 't', level, 0);
	return run(argv);
}

static char stacks[MAX_THREADS][STACK_SIZE] __attribute__((aligned(16)));

static void thread_waits(void)
{
	for (;;)
		sys_pause();
}

static void thread_executes(void)
{
	char *argv[] = {path, 0}, *none[] = {0};

	sys_execve(path, argv, none);
	sys_exit_group(127);
}

/* Executes path from the last of several threads. */
static int run_threads(u64 threads)
{
	int status = -1;
	long pid = sys_fork();

	if (pid == 0) {
		for (u64 i = 0; i < threads && i < MAX_THREADS; i++) {
			int last = i + 1 == threads || i + 1 == MAX_THREADS;

			if (sys_thread(last ? thread_executes : thread_waits, stacks[i] + STACK_SIZE) < 0)
				sys_exit_group(127);
		}
		thread_waits();
	}
	return pid > 0 && sys_wait4(pid, &status) == pid && status == 0;
}

static void note(u64 first, u64 files, int well)
{
	if (!well) {
		__atomic_add_fetch(&shared->failed, 1, __ATOMIC_RELAXED);
		return;
	}
	for (u64 i = 0; i < files; i++)
		__atomic_add_fetch(&shared->files[first + i], 1, __ATOMIC_RELAXED);
}

static u64 leaf; /* of this job: which name comes next */

/* One step of a job; returns how many executions it was meant to make. */
static u64 step(u64 i)
{
	char *dir = args[DIR], *token = args[TOKEN];
	u64 names = number[NAMES], longs = number[LONGS], depth = number[DEPTH], threads = number[THREADS];

	if (depth && i % 256 == 7) {
		note(names + longs, depth, run_chain(dir, token, depth - 1));
		return depth;
	}
	if (threads && i % 128 == 3) {
		make_path(dir, token, 'h', 0, 0);
		note(names + longs + depth, 1, run_threads(threads));
	} else if (longs && i % 32 == 5) {
		u64 k = i / 32 % longs;

		make_path(dir, token, 'l', k, number[STEPS]);
		note(names + k, 1, run_leaf());
	} else {
		u64 k = leaf++ % names;

		make_path(dir, token, 'n', k, 0);
		note(k, 1, run_leaf());
	}
	return 1;
}

static void job(u64 which)
{
	u64 rate = number[RATE], limit = number[MILLIS] * 1000000, begin = sys_now(), done = 0;

	leaf = which * 61;
	for (u64 i = leaf;; i++) {
		u64 now = sys_now();

		if (limit && now - shared->begin >= limit)
			return;
		if (rate) {
			u64 due = begin + done * 1000000000 * number[JOBS] / rate;

			if (due > now)
				sys_sleep(due - now);
			else if (now - due > 100000000)
				begin += now - due; /* it can't keep up; it doesn't try to catch up */
		}
		/* The deep tree may go a little above the count. */
		if (number[COUNT] && __atomic_fetch_add(&shared->count, 1, __ATOMIC_RELAXED) >= number[COUNT])
			return;
		u64 made = step(i);

		done += made;
		if (made > 1)
			__atomic_add_fetch(&shared->count, made - 1, __ATOMIC_RELAXED);
	}
}

static char out[8192];
static u64 out_used;

static void flush(void)
{
	for (u64 at = 0; at < out_used;) {
		long n = sys_write(1, out + at, out_used - at);

		if (n <= 0)
			sys_exit_group(1);
		at += (u64)n;
	}
	out_used = 0;
}

static void say(const char *s)
{
	for (; *s; s++) {
		if (out_used == sizeof(out))
			flush();
		out[out_used++] = *s;
	}
}

static void say_number(const char *before, u64 n)
{
	char buffer[24];

	say(before);
	say(digits(buffer + sizeof(buffer), n));
}

static void report(u64 ns)
{
	static const char *const kinds[] = {"n ", "l ", "t ", "h "};
	u64 sizes[] = {number[NAMES], number[LONGS], number[DEPTH], number[THREADS] ? 1 : 0};
	u64 at = 0;

	for (int k = 0; k < 4; k++) {
		for (u64 i = 0; i < sizes[k]; i++, at++) {
			say_number(kinds[k], i);
			say_number(" ", shared->files[at]);
			say("\n");
		}
	}
	say_number("failed ", shared->failed);
	say_number("\nns ", ns);
	say("\nend\n");
	flush();
}

static int storm(void)
{
	char byte;

	for (int i = RATE; i < ARGS; i++)
		number[i] = parse(args[i]);
	if (!number[NAMES] || !number[JOBS] || number[NAMES] + number[LONGS] + number[DEPTH] + 1 > MAX_FILES)
		return 2;
	shared = sys_share(sizeof(*shared));
	if (!shared)
		return 1;
	sys_read(0, &byte, 1);
	shared->begin = sys_now();
	for (u64 i = 0; i < number[JOBS]; i++) {
		long pid = sys_fork();

		if (pid == 0) {
			job(i);
			sys_exit_group(0);
		}
		if (pid < 0)
			return 1;
	}
	for (u64 i = 0; i < number[JOBS]; i++) {
		int status = -1;

		if (sys_wait4(-1, &status) < 0 || status)
			return 1;
	}
	report(sys_now() - shared->begin);
	return 0;
}

__attribute__((used, noreturn)) void begin(long *stack)
{
	long argc = stack[0];
	int code = 0;

	args = (char **)(stack + 1);
	if (argc == 5 && args[1][0] == 'c') {
		u64 level = parse(args[4]);

		code = level && !run_chain(args[DIR], args[TOKEN], level - 1);
	} else if (argc == ARGS && args[1][0] == 'r') {
		code = storm();
	} else if (argc > 1) {
		code = 2;
	}
	sys_exit_group(code);
}
