/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Reports files that became executable in the current process. */
#ifndef CONFINE_MAPPING_H
#define CONFINE_MAPPING_H

#define MAX_RANGES 64

static __always_inline __u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline void send_mapping(struct file *file, __u64 addr, __u32 slot, __u64 image, __u32 origin)
{
	struct task_struct *task = bpf_get_current_task_btf();
	enum sight sight = SIGHT_FIRST;
	struct key k = {image, origin};
	struct scratch *s;
	int known;

	mix_key(&k, REPEAT_MAPPING);
	known = mix_file(&k, task, file);
	if (known)
		sight = note(&k, REPEAT_MAPPING);
	if (sight == SIGHT_COUNTED)
		return;
	s = new_event(slot, KIND_MAPPING);
	if (!s)
		return;
	s->ev.pid = current_tgid();
	s->ev.addr = addr;
	s->ev.image = image;
	put_file(s, slot, TEXT_PATH, file);
	if (send_event(s, sight == SIGHT_AGAIN) && known)
		forget(&k);
}

/* Leaves it to user space to find out what is mapped. */
static __always_inline void send_unmapped(__u64 addr, __u64 end, long err, __u32 slot, __u64 image)
{
	struct scratch *s = new_event(slot, KIND_UNMAPPED);

	if (!s)
		return;
	s->ev.pid = current_tgid();
	s->ev.addr = addr;
	s->ev.offset = end - addr;
	s->ev.vma_error = -err;
	s->ev.image = image;
	send_event(s, 0);
}

struct ranges {
	__u64 addr;
	__u64 end;
	__u64 image;
	__u32 origin;
	__u32 slot;
	__s32 err;
};

/* Reports the mapping at r->addr and steps behind it; returns 1 to end. */
static long send_range(__u32 i, void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct ranges *r = ctx;
	struct vma v = {};

	if (r->addr >= r->end)
		return 1;
	r->err = vma_at(task, r->addr, &v);
	if (r->err)
		return 1;
	if (v.file && (v.flags & VM_EXEC))
		send_mapping(v.file, r->addr, r->slot, r->image, r->origin);
	if (v.end <= r->addr)
		return 1;
	r->addr = v.end;
	return 0;
}

/* Reports the executable mappings of files in a range. Returns 0, or an error
 * with *addr at what is left. */
static __always_inline long send_ranges(__u64 *addr, __u64 end, __u32 slot, __u64 image, __u32 origin)
{
	struct ranges r = {.addr = *addr, .end = end, .image = image, .origin = origin, .slot = slot};

	bpf_loop(MAX_RANGES, send_range, &r, 0);
	*addr = r.addr;
	if (!r.err && r.addr < r.end)
		count_lost(LOST_RANGES);
	return r.err;
}

/* Tries again what could not be looked at before. */
static __always_inline void send_later(struct state *st, int last, __u32 slot)
{
	__u64 addr = st->later_addr, end = st->later_end;
	long err;

	err = send_ranges(&addr, end, slot, st->image, st->origin);
	if (err == -EBUSY && !last) {
		st->later_addr = addr;
		return;
	}
	if (err)
		send_unmapped(addr, end, err, slot, st->image);
	st->later_end = 0;
}

/* Reports what mprotect made executable. */
static __always_inline void send_protected(struct state *st, struct view *v, __u64 addr, __u64 end)
{
	long err = send_ranges(&addr, end, SLOT_EXIT, v->image, v->origin);

	if (err == -EBUSY && st && !st->later_end) {
		st->later_addr = addr;
		st->later_end = end;
		return;
	}
	/* -ENOENT: another thread has unmapped it already */
	if (err)
		send_unmapped(addr, end, err, SLOT_EXIT, v->image);
}

/* Reports what mmap mapped executable. The mapping itself tells, and so does
 * the descriptor; each can have been replaced by another thread by now. */
static __always_inline void send_mapped(struct task_struct *task, struct state *st, struct view *w, __u64 addr, int fd)
{
	struct file *file = NULL;
	struct vma v = {};
	long err;

	err = vma_at(task, addr, &v);
	if (!err && (!v.file || !(v.flags & VM_EXEC)))
		return;
	if (fd >= 0)
		file = file_at(task, fd);
	if (!err)
		send_mapping(v.file, addr, SLOT_EXIT, w->image, w->origin);
	if (file && (err || !same_file(file, v.file)))
		send_mapping(file, addr, SLOT_EXIT, w->image, w->origin);
	if (err && !file)
		send_protected(st, w, addr, addr + 1);
}

#endif
