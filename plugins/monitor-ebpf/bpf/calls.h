/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* System calls: those that were made, and those that seccomp refused. */
#ifndef CONFINE_CALLS_H
#define CONFINE_CALLS_H

/* Above every number of every kernel: what lies behind it isn't a call, except
 * with X32_BIT. */
#define MAX_NR 1024
#define SECCOMP_MODE_DEAD 3
#define EEXIST 17

struct made {
	__u64 native[MAX_NR / 64];
	__u64 compat[MAX_NR / 64];
};

#define MAX_IMAGES 8192
#define NO_SLOT MAX_IMAGES

/* What each image made, by slot; slots by image. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_IMAGES);
	__type(key, __u32);
	__type(value, struct made);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_IMAGES);
	__type(key, __u64);
	__type(value, __u32);
} slots SEC(".maps");

__u32 slots_used;

/* Returns the slot of an image, a new one at its first time, NO_SLOT (and
 * counts) when there is none left. */
static __always_inline __u32 slot_of(__u64 image)
{
	__u32 *known = bpf_map_lookup_elem(&slots, &image);
	__u32 slot;

	if (known)
		return *known;
	slot = __sync_fetch_and_add(&slots_used, 1);
	if (slot < MAX_IMAGES && !bpf_map_update_elem(&slots, &image, &slot, BPF_NOEXIST))
		return slot;
	/* Another processor may have been faster. */
	known = bpf_map_lookup_elem(&slots, &image);
	if (known)
		return *known;
	count_lost(LOST_IMAGES);
	return NO_SLOT;
}

struct place {
	__u64 image;
	__u64 inode; /* of the object that the call was made from */
	__u64 offset; /* in the object, or the address when that is unknown */
	__u32 nr;
	__u32 arch;
};

struct denial {
	__u64 count;
	__u64 time; /* of the first */
	__s64 ret;
	__u32 pid; /* of the first */
	__s32 signal;
	__u64 args[6]; /* of the first */
};

/* Refused calls; what is in it has been told. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct place);
	__type(value, struct denial);
} denials SEC(".maps");

static __always_inline void record_call(__u32 slot, long nr, int compat)
{
	struct made *m = bpf_map_lookup_elem(&calls, &slot);
	__u64 *word, bit;

	if (!m)
		return; /* counted when the slot was asked for */
	if (nr < 0)
		return; /* no call: -1 makes the kernel do nothing */
	if (nr >= MAX_NR) {
		if (!compat && nr >= X32_BIT && nr < X32_BIT + MAX_NR)
			count_lost(LOST_NUMBER);
		return;
	}
	bit = 1ull << (nr & 63);
	word = compat ? &m->compat[(nr >> 6) & 15] : &m->native[(nr >> 6) & 15];
	if (!(*word & bit))
		__sync_fetch_and_or(word, bit);
}

static __always_inline int seccomp_mode(struct task_struct *task)
{
	return task->seccomp.mode;
}

/* Counts a refused call, and reports it when it is the first from its place. */
static __always_inline int denied_call(struct task_struct *task, struct pt_regs *regs, __u64 image,
				  long ret, int signal, __u32 slot)
{
	struct denial first = {}, *known;
	struct place at = {};
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct vma v = {};
	struct scratch *s;
	long err, err_update;

	at.image = image;
	at.nr = regs_nr(regs);
	at.arch = task_in_compat(task) ? ARCH_COMPAT : ARCH_NATIVE;
	at.offset = regs_ip(regs);
	err = vma_at(task, at.offset, &v);
	if (!err && v.file) {
		file_path(v.file, &dentry, &mnt);
		at.inode = BPF_CORE_READ(dentry, d_inode, i_ino);
		at.offset = at.offset - v.start + v.offset;
	}
	known = bpf_map_lookup_elem(&denials, &at);
	if (known) {
		__sync_fetch_and_add(&known->count, 1);
		if (known->signal || !signal)
			return 0;
		known->signal = signal;
	} else {
		first.count = 1;
		first.ret = ret;
		first.signal = signal;
		first.pid = bpf_get_current_pid_tgid() >> 32;
		first.time = bpf_ktime_get_boot_ns();
		regs_args(regs, at.arch == ARCH_COMPAT, first.args);
		err_update = bpf_map_update_elem(&denials, &at, &first, BPF_NOEXIST);
		if (err_update && err_update != -EEXIST)
			count_lost(LOST_PLACES);
		if (err_update == -EEXIST) {
			known = bpf_map_lookup_elem(&denials, &at);
			if (known) {
				__sync_fetch_and_add(&known->count, 1);
				return 0;
			}
		}
	}
	s = new_event(slot, KIND_DENIED);
	if (!s)
		return 0;
	s->ev.pid = bpf_get_current_pid_tgid() >> 32;
	s->ev.value = at.nr;
	s->ev.image = at.image;
	s->ev.arch = at.arch;
	s->ev.addr = regs_ip(regs);
	s->ev.offset = at.offset;
	s->ev.ret = ret;
	s->ev.signal = signal;
	s->ev.vma_error = -err;
	regs_args(regs, at.arch == ARCH_COMPAT, s->ev.args);
	BPF_CORE_READ_STR_INTO(&s->ev.comm, task, comm);
	if (!err && v.file)
		put_file(s, slot, TEXT_PATH, v.file);
	send_event(s, 0);
	return 0;
}

#endif
