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
#include "vma.h"
#include "calls.h"
#include "scope.h"
#include "seen.h"
#include "mapping.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define PROT_EXEC 0x4
#define READ_IMPLIES_EXEC 0x0400000
#define SIGSYS 31
#define SIGNAL_GROUP_EXIT 0x4

/* Reports the ELF interpreter: where the new image begins to run, if that is
 * in another file than the executed one. */
static __always_inline void send_loader(struct task_struct *task, struct file *exe, struct view *w)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct vma v = {};
	long err;

	err = vma_at(task, regs_ip(regs), &v);
	if (err)
		send_unmapped(regs_ip(regs), regs_ip(regs) + 1, err, SLOT_EXEC, w->image);
	else if (v.file && v.file != exe && !same_file(v.file, exe))
		send_mapping(v.file, regs_ip(regs), SLOT_EXEC, w->image, w->origin);
}

/* Tells an execution apart from others. Returns 0 when it can't be. */
static __always_inline int exec_key(struct key *k, struct task_struct *task, struct linux_binprm *bprm,
				    struct file *exe, struct scratch *s)
{
	const char *filename = BPF_CORE_READ(bprm, filename);
	struct dentry *cwd;

	if (BPF_CORE_READ(bprm, interp) != filename)
		return 0; /* a script */
	if (!mix_file(k, task, exe) || !mix_name(k, s, filename))
		return 0;
	if (s->data[0] == '/')
		return 1;
	cwd = BPF_CORE_READ(task, fs, pwd.dentry);
	mix_key(k, (__u64)cwd);
	mix_key(k, BPF_CORE_READ(cwd, d_name.hash_len));
	mix_key(k, BPF_CORE_READ(cwd, d_inode, i_ino));
	mix_key(k, (__u64)BPF_CORE_READ(task, fs, pwd.mnt));
	return 1;
}

static __always_inline void put_exec(struct scratch *s, struct task_struct *task, struct linux_binprm *bprm,
				     struct file *exe)
{
	const char *filename = BPF_CORE_READ(bprm, filename);
	const char *interp = BPF_CORE_READ(bprm, interp);
	char first = 0;

	s->ev.pid = current_tgid();
	s->ev.ppid = BPF_CORE_READ(task, real_parent, tgid);
	s->ev.cgroup = bpf_get_current_cgroup_id();
	BPF_CORE_READ_STR_INTO(&s->ev.comm, task, comm);
	put_file(s, SLOT_EXEC, TEXT_PATH, exe);
	put_string(s, TEXT_FILENAME, filename, PATH_MAX_SIZE);
	if (interp != filename)
		put_string(s, TEXT_INTERP, interp, PATH_MAX_SIZE);
	bpf_probe_read_kernel(&first, 1, filename);
	if (first != '/')
		put_path(s, SLOT_EXEC, TEXT_CWD, BPF_CORE_READ(task, fs, pwd.dentry),
			 BPF_CORE_READ(task, fs, pwd.mnt));
	if (interp != filename)
		put_args(s, task);
}

SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct linux_binprm *bprm = (void *)ctx[2];
	enum sight sight = SIGHT_FIRST;
	struct view v = {};
	struct scratch *s;
	struct state *st;
	struct file *exe;
	struct key k;
	int known = 0;

	st = current_state(task, SLOT_EXEC, &v);
	if (!v.image)
		return 0;
	exe = BPF_CORE_READ(task, mm, exe_file);
	v.image = file_hash(task, exe);
	v.slot = slot_of(v.image);
	if (st) {
		st->image = v.image;
		st->slot = v.slot;
		if (v.found)
			st->entered = 1; /* its execve began before the watch */
	}
	k.a = v.origin;
	k.b = bpf_get_current_cgroup_id();
	s = new_event(SLOT_EXEC, KIND_EXEC);
	if (!s)
		return 0;
	if (!st || !st->named)
		known = exec_key(&k, task, bprm, exe, s);
	if (known)
		sight = note(&k, REPEAT_EXEC);
	if (sight != SIGHT_COUNTED) {
		s->ev.image = v.image;
		s->ev.origin = v.origin;
		if (known)
			s->ev.key = k;
		put_exec(s, task, bprm, exe);
		if (send_event(s, sight == SIGHT_AGAIN) && known)
			forget(&k);
	}
	send_loader(task, exe, &v);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *child = (void *)ctx[1];
	struct state *st, *cs;
	struct view v = {};

	clear_outside(child->tgid);
	st = current_state(task, SLOT_FORK, &v);
	if (!v.image)
		return 0;
	if (st && v.found)
		st->entered = 1;
	cs = bpf_task_storage_get(&states, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!cs) {
		add_seed(child, v.origin);
		return 0;
	}
	cs->image = v.image;
	cs->slot = v.slot;
	cs->origin = v.origin;
	cs->entered = 1; /* it begins by leaving the call that made it */
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int on_move(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[2];
	int whole_group = !!ctx[3];

	if (!whole_group) {
		look_always(task->tgid);
		return 0;
	}
	count_move();
	clear_outside(task->tgid);
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

	st = known_state(task);
	if (!st && (known_outside(task) || !in_scope(task)))
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
	if (seed_of(task))
		bpf_map_delete_elem(&seeds, &tgid);
	if (!every_event)
		count_repeat(REPEAT_EXIT);
	if (!every_event && !(st && st->named))
		return 0;
	s = new_event(SLOT_END, KIND_EXIT);
	if (!s)
		return 0;
	s->ev.pid = tgid;
	s->ev.value = (BPF_CORE_READ(sig, flags) & SIGNAL_GROUP_EXIT) ?
		BPF_CORE_READ(sig, group_exit_code) : BPF_CORE_READ(task, group_leader, exit_code);
	send_event(s, 1);
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
	send_event(s, 0);
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
	record_call(v.slot, nr, compat);
	if (is_execveat(nr, compat)) {
		if (st)
			st->named = 1;
		send_dirfd(task, execveat_fd(regs, compat));
	} else if (st && st->named) {
		st->named = 0;
	}
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

	st = known_state(task);
	if (st)
		view_state(st, &v);
	else if (!known_outside(task) || is_setns(regs_nr(regs)))
		st = find_state(task, SLOT_EXIT, &v);
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
		send_mapped(task, st, &v, compat ? (__u64)ret & 0xffffffff : (__u64)ret, call.fd);
	} else {
		send_protected(st, &v, call.addr, call.addr + call.len);
	}
	return 0;
}
