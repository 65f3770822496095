/* The few system calls that the storm makes, on both architectures. */
#ifndef CONFINE_STORM_SYSCALLS_H
#define CONFINE_STORM_SYSCALLS_H

typedef unsigned long long u64;
typedef unsigned int u32;

#define SIGCHLD 17
#define CLONE_VM 0x100
#define CLONE_VFORK 0x4000
/* VM, FS, FILES, SIGHAND, THREAD, SYSVSEM */
#define CLONE_THREADS 0x50f00
#define PROT_READ_WRITE 3
#define MAP_SHARED_ANONYMOUS 0x21
#define CLOCK_MONOTONIC 1

#if defined(__x86_64__)
enum {
	NR_read = 0, NR_write = 1, NR_mmap = 9, NR_nanosleep = 35, NR_clone = 56, NR_execve = 59,
	NR_wait4 = 61, NR_clock_gettime = 228, NR_exit_group = 231, NR_ppoll = 271,
};

static inline __attribute__((always_inline)) long call6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

/* Begins a thread on a stack of its own; function doesn't return. */
static inline long sys_thread(void (*function)(void), char *stack)
{
	register long r10 __asm__("r10") = 0;
	register long r8 __asm__("r8") = 0;
	register void (*r9)(void) __asm__("r9") = function;
	long ret;

	__asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tcall *%%r9\n\thlt\n1:"
			 : "=a"(ret) : "a"(NR_clone), "D"(CLONE_THREADS), "S"(stack), "d"(0), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");

#elif defined(__aarch64__)
enum {
	NR_read = 63, NR_write = 64, NR_ppoll = 73, NR_exit_group = 94, NR_nanosleep = 101,
	NR_clock_gettime = 113, NR_clone = 220, NR_execve = 221, NR_mmap = 222, NR_wait4 = 260,
};

static inline __attribute__((always_inline)) long call6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

static inline long sys_thread(void (*function)(void), char *stack)
{
	register long x8 __asm__("x8") = NR_clone;
	register long x0 __asm__("x0") = CLONE_THREADS;
	register char *x1 __asm__("x1") = stack;
	register long x2 __asm__("x2") = 0;
	register long x3 __asm__("x3") = 0;
	register long x4 __asm__("x4") = 0;
	register void (*x9)(void) __asm__("x9") = function;

	__asm__ volatile("svc #0\n\tcbnz x0, 1f\n\tmov x29, #0\n\tblr x9\n1:"
			 : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x9) : "memory", "x30");
	return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl begin\n");
#else
#error "no system calls are known for this architecture"
#endif

/* Inlined in every caller: the child of a vfork must not return from where it
 * began. */
#define sys_vfork() call6(NR_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0, 0)
#define sys_fork() call6(NR_clone, SIGCHLD, 0, 0, 0, 0, 0)
#define sys_execve(path, argv, env) call6(NR_execve, (long)(path), (long)(argv), (long)(env), 0, 0, 0)
#define sys_wait4(pid, status) call6(NR_wait4, (pid), (long)(status), 0, 0, 0, 0)
#define sys_write(fd, data, n) call6(NR_write, (fd), (long)(data), (long)(n), 0, 0, 0)
#define sys_read(fd, data, n) call6(NR_read, (fd), (long)(data), (long)(n), 0, 0, 0)
#define sys_pause() call6(NR_ppoll, 0, 0, 0, 0, 0, 0)

static inline __attribute__((noreturn)) void sys_exit_group(long code)
{
	for (;;)
		call6(NR_exit_group, code, 0, 0, 0, 0, 0);
}

static inline void *sys_share(u64 size)
{
	long at = call6(NR_mmap, 0, (long)size, PROT_READ_WRITE, MAP_SHARED_ANONYMOUS, -1, 0);

	return at < 0 && at > -4096 ? 0 : (void *)at;
}

struct timespec {
	long seconds, nanoseconds;
};

static inline u64 sys_now(void)
{
	struct timespec t = {0, 0};

	call6(NR_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0, 0, 0, 0);
	return (u64)t.seconds * 1000000000 + (u64)t.nanoseconds;
}

static inline void sys_sleep(u64 ns)
{
	struct timespec t = {(long)(ns / 1000000000), (long)(ns % 1000000000)};

	call6(NR_nanosleep, (long)&t, 0, 0, 0, 0, 0);
}

#endif
