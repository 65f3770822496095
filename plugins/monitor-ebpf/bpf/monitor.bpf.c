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

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define PROT_EXEC 0x4
#define READ_IMPLIES_EXEC 0x0400000
#define MAX_RANGES 64
#define SIGSYS 31
#define SIGNAL_GROUP_EXIT 0x4

static __always_inline __u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* Reports the ELF interpreter: where the new image begins to run, if that is
 * in another file than the executed one. */
static __always_inline void send_loader(struct task_struct *task, struct file *exe)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct vma v = {};
	struct scratch *s;
	long err;

	err = vma_at(task, regs_ip(regs), &v);
	if (!err && (!v.file || v.file == exe || same_file(v.file, exe)))
		return;
	s = new_event(SLOT_EXEC, err ? KIND_UNMAPPED : KIND_MAPPING);
	if (!s)
		return;
	s->ev.pid = current_tgid();
	s->ev.addr = regs_ip(regs);
	s->ev.offset = 1;
	s->ev.vma_error = -err;
	if (!err)
		put_file(s, SLOT_EXEC, TEXT_PATH, v.file);
	send_event(s);
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
	char first = 0;
	int found = 0;

	st = current_state(task, SLOT_EXEC, &found);
	if (!st)
		return 0;
	if (found)
		st->entered = 1; /* its execve began before the watch */
	exe = BPF_CORE_READ(task, mm, exe_file);
	st->image = file_hash(task, exe);
	s = new_event(SLOT_EXEC, KIND_EXEC);
	if (!s)
		return 0;
	s->ev.pid = current_tgid();
	s->ev.ppid = BPF_CORE_READ(task, real_parent, tgid);
	s->ev.image = st->image;
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
	int found = 0;

	st = current_state(task, SLOT_FORK, &found);
	if (!st)
		return 0;
	if (found)
		st->entered = 1;
	cs = bpf_task_storage_get(&states, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!cs) {
		count_lost(LOST_STATE);
		return 0;
	}
	cs->image = st->image;
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
	if (!st)
		return 0;
	if (!st->entered && !st->killed && seccomp_mode(task) == SECCOMP_MODE_DEAD)
		denied_call(task, (struct pt_regs *)bpf_task_pt_regs(task), st, 0, SIGSYS, SLOT_END);
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
	if (scope_pids)
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
	int found = 0, compat;

	st = current_state(task, SLOT_ENTER, &found);
	if (!st)
		return 0;
	st->entered = 1;
	compat = task_in_compat(task);
	record_call(st->image, nr, compat);
	if (is_execveat(nr, compat))
		send_dirfd(task, execveat_fd(regs, compat));
	return 0;
}

struct ranges {
	__u64 addr;
	__u64 end;
	int fd; /* of an mmap, or -1 */
};

/* Reports the mapping at r->addr and steps behind it; returns 1 to end. */
static long send_range(__u32 i, void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct ranges *r = ctx;
	struct vma v = {};
	struct scratch *s;
	long err;

	if (r->addr >= r->end)
		return 1;
	err = vma_at(task, r->addr, &v);
	if (err == -ENOENT)
		return 1; /* another thread has unmapped it */
	if (err && r->fd >= 0) {
		/* The mappings are being changed: the descriptor tells as well. */
		v.file = file_at(task, r->fd);
		v.flags = VM_EXEC;
		v.end = r->end;
		err = v.file ? 0 : err;
	}
	if (!err && (!v.file || !(v.flags & VM_EXEC)))
		goto next;
	s = new_event(SLOT_EXIT, err ? KIND_UNMAPPED : KIND_MAPPING);
	if (!s)
		return 1;
	s->ev.pid = current_tgid();
	s->ev.addr = r->addr;
	s->ev.offset = r->end - r->addr;
	s->ev.vma_error = -err;
	if (!err)
		put_file(s, SLOT_EXIT, TEXT_PATH, v.file);
	send_event(s);
	if (err)
		return 1;
next:
	if (v.end <= r->addr)
		return 1;
	r->addr = v.end;
	return 0;
}

SEC("tp_btf/sys_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	struct map_call call = {};
	struct ranges r = {};
	long ret = (long)ctx[1];
	struct state *st;
	int found = 0, compat, mode;
	long nr;

	st = current_state(task, SLOT_EXIT, &found);
	if (!st)
		return 0;
	if (!st->entered && !found) {
		mode = seccomp_mode(task);
		if (mode == SECCOMP_MODE_DEAD)
			st->killed = 1;
		if (mode)
			denied_call(task, regs, st, ret, mode == SECCOMP_MODE_DEAD ? SIGSYS : 0, SLOT_EXIT);
		return 0;
	}
	st->entered = 0;
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
	r.addr = call.is_mmap ? (__u64)ret : call.addr;
	if (compat)
		r.addr &= 0xffffffff;
	r.end = r.addr + (call.is_mmap ? 1 : call.len);
	r.fd = call.fd;
	bpf_loop(MAX_RANGES, send_range, &r, 0);
	if (r.addr < r.end && !call.is_mmap) {
		struct vma v = {};

		/* more mappings than steps; the rest is for user space */
		if (!vma_at(task, r.addr, &v))
			count_lost(LOST_RANGES);
	}
	return 0;
}
