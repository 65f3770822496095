/* refuse HOW COUNT: makes a call COUNT times that its own filter answers with
 * HOW: "errno" (EPERM), "enosys", "trap", "kill" (the process), "thread" (a
 * thread beside the first one). The call is sethostname. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void call(void)
{
	long nr = SYS_sethostname;
	/* arguments that are known, though only two of them mean something */
	register long a4 asm("r10") = 0x44, a5 asm("r8") = 0x55, a6 asm("r9") = -0x66;

	/* after_call is what the monitor has to name */
	asm volatile("syscall\n"
		     ".globl after_call\n"
		     "after_call: nop\n"
		     : "+a"(nr)
		     : "D"(0x1100000011), "S"(0x22), "d"(0x33), "r"(a4), "r"(a5), "r"(a6)
		     : "rcx", "r11", "memory");
}

static void *calls(void *count)
{
	for (long i = 0; i < (long)count; i++)
		call();
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int action = SECCOMP_RET_ERRNO | EPERM;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sethostname, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, code};
	long count = atol(argv[2]);
	pthread_t t;

	if (!strcmp(argv[1], "enosys"))
		action = SECCOMP_RET_ERRNO | ENOSYS;
	if (!strcmp(argv[1], "trap"))
		action = SECCOMP_RET_TRAP;
	if (!strcmp(argv[1], "kill"))
		action = SECCOMP_RET_KILL_PROCESS;
	if (!strcmp(argv[1], "thread"))
		action = SECCOMP_RET_KILL_THREAD;
	code[2].k = action;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) {
		perror("prctl");
		return 1;
	}
	if (!strcmp(argv[1], "thread")) {
		pthread_create(&t, NULL, calls, (void *)count);
		pthread_join(t, NULL);
	} else {
		calls((void *)count);
	}
	return 0;
}
