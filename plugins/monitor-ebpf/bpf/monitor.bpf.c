//go:build ignore

/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Watches one scope: executions, executable mappings, ends of processes, the
 * system calls that are made and those that seccomp refuses. Needs tracepoints
 * with BTF arguments, and nothing that depends on kprobes or trampolines.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "arch.h"
#include "event.h"
#include "path.h"
#include "scope.h"
#include "vma.h"
#include "calls.h"
#include "mapping.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define PROT_EXEC 0x4
#define READ_IMPLIES_EXEC 0x0400000
#define SIGSYS 31
#define SIGNAL_GROUP_EXIT 0x4

/* Reports the ELF interpreter: where the new image begins to run, if that is
 * in another file than the executed one. */
static __always_inline void send_loader(struct task_struct *task, struct file *exe)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct vma v = {};
	long err;

	err = vma_at(task, regs_ip(regs), &v);
	if (err)
		send_unmapped(regs_ip(regs), regs_ip(regs) + 1, err, SLOT_EXEC);
	else if (v.file && v.file != exe && !same_file(v.file, exe))
		send_mapping(v.file, regs_ip(regs), SLOT_EXEC);
}

SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct linux_binprm *bprm = (void *)ctx[2];
	const char *filename, *interp;
	struct file *exe;
	struct scratch *s;
	struct state *st;
	struct view v = {};
	char first = 0;

	st = current_state(task, SLOT_EXEC, &v);
	if (!v.image)
		return 0;
	exe = BPF_CORE_READ(task, mm, exe_file);
	v.image = file_hash(task, exe);
	if (st) {
		st->image = v.image;
		if (v.found)
			st->entered = 1; /* its execve began before the watch */
	}
	s = new_event(SLOT_EXEC, KIND_EXEC);
	if (!s)
		return 0;
	s->ev.pid = current_tgid();
	s->ev.ppid = BPF_CORE_READ(task, real_parent, tgid);
	s->ev.image = v.image;
	BPF_CORE_READ_STR_INTO(&s->ev.comm, task, comm);
	put_file(s, SLOT_EXEC, TEXT_PATH, exe);
	filename = BPF_CORE_READ(bprm, filename);
	interp = BPF_CORE_READ(bprm, interp);
	put_string(s, TEXT_FILENAME, filename, PATH_MAX_SIZE);
	if (interp != filename)
		put_string(s, TEXT_INTERP, interp, PATH_MAX_SIZE);
	bpf_probe_read_kernel(&first, 1, filename);
	if (first != '/')
		put_path(s, SLOT_EXEC, TEXT_CWD, BPF_CORE_READ(task, fs, pwd.dentry),
			 BPF_CORE_READ(task, fs, pwd.mnt));
	if (interp != filename)
		put_args(s, task);
	send_event(s);
	send_loader(task, exe);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *child = (void *)ctx[1];
	struct state *st, *cs;
	struct view v = {};

	st = current_state(task, SLOT_FORK, &v);
	if (!v.image)
		return 0;
	if (st && v.found)
		st->entered = 1;
	cs = bpf_task_storage_get(&states, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!cs) {
		add_seed(BPF_CORE_READ(child, tgid));
		return 0;
	}
	cs->image = v.image;
	cs->entered = 1; /* it begins by leaving the call that made it */
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_end(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader;
	struct signal_struct *sig;
	struct state *st;
	struct scratch *s;
	__u32 tgid = current_tgid();

	st = bpf_task_storage_get(&states, task, NULL, 0);
	if (!st && !in_scope(task))
		return 0;
	if (st && !st->entered && !st->killed && seccomp_mode(task) == SECCOMP_MODE_DEAD)
		denied_call(task, (struct pt_regs *)bpf_task_pt_regs(task), st->image, 0, SIGSYS, SLOT_END);
	if (st && st->later_end)
		send_later(st, 1, SLOT_END);
	sig = BPF_CORE_READ(task, signal);
	if (BPF_CORE_READ(sig, live.counter))
		return 0;
	leader = task->group_leader;
	st = bpf_task_storage_get(&states, leader, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	/* Two threads that end at once may both find none alive. */
	if (st && __sync_fetch_and_add(&st->ended, 1))
		return 0;
	s = new_event(SLOT_END, KIND_EXIT);
	if (!s)
		return 0;
	s->ev.pid = tgid;
	s->ev.value = (BPF_CORE_READ(sig, flags) & SIGNAL_GROUP_EXIT) ?
		BPF_CORE_READ(sig, group_exit_code) : BPF_CORE_READ(task, group_leader, exit_code);
	send_event(s);
	if (scope_pids || seeds_used)
		bpf_map_delete_elem(&seeds, &tgid);
	return 0;
}

/* Tells what the descriptor of an execveat stands for. */
static __always_inline void send_dirfd(struct task_struct *task, int fd)
{
	struct scratch *s;
	struct file *file;

	if (fd < 0)
		return;
	file = file_at(task, fd);
	if (!file)
		return;
	s = new_event(SLOT_ENTER, KIND_DIRFD);
	if (!s)
		return;
	s->ev.pid = current_tgid();
	put_file(s, SLOT_ENTER, TEXT_PATH, file);
	send_event(s);
}

SEC("tp_btf/sys_enter")
int on_enter(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	long nr = (long)ctx[1];
	struct state *st;
	struct view v = {};
	int compat;

	st = current_state(task, SLOT_ENTER, &v);
	if (!v.image)
		return 0;
	if (st) {
		st->entered = 1;
		if (st->later_end)
			send_later(st, 0, SLOT_ENTER);
	}
	compat = task_in_compat(task);
	record_call(v.image, nr, compat);
	if (is_execveat(nr, compat))
		send_dirfd(task, execveat_fd(regs, compat));
	return 0;
}

/* A call that never passed sys_enter was refused before. SIGSYS leaves the
 * call's number where its result would be; an error is negative. */
static __always_inline int not_entered(struct task_struct *task, struct pt_regs *regs, struct state *st, long ret)
{
	int mode = seccomp_mode(task), signal = 0;

	if (!mode)
		return 0;
	if (mode == SECCOMP_MODE_DEAD) {
		st->killed = 1;
		signal = SIGSYS;
	} else if (ret == regs_nr(regs)) {
		signal = SIGSYS;
	}
	return denied_call(task, regs, st->image, ret, signal, SLOT_EXIT);
}

SEC("tp_btf/sys_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	struct map_call call = {};
	long ret = (long)ctx[1];
	struct state *st;
	struct view v = {};
	int compat;
	long nr;

	st = current_state(task, SLOT_EXIT, &v);
	if (!v.image)
		return 0;
	if (st && !st->entered && !v.found)
		return not_entered(task, regs, st, ret);
	if (st) {
		st->entered = 0;
		if (st->later_end)
			send_later(st, 0, SLOT_EXIT);
	}
	compat = task_in_compat(task);
	nr = regs_nr(regs);
	if (!map_call(regs, nr, compat, &call))
		return 0;
	if (compat)
		ret = (long)(int)ret;
	if (ret < 0 && ret > -4096)
		return 0;
	if (!call.any_prot && !(call.prot & PROT_EXEC) &&
	    !(BPF_CORE_READ(task, personality) & READ_IMPLIES_EXEC))
		return 0;
	if (call.is_mmap) {
		if (!call.any_prot && call.fd < 0)
			return 0;
		send_mapped(task, st, compat ? (__u64)ret & 0xffffffff : (__u64)ret, call.fd);
	} else {
		send_protected(st, call.addr, call.addr + call.len);
	}
	return 0;
}
