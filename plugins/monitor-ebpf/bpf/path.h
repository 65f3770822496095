/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Paths of files, from the kernel's own objects up to the process's root. */
#ifndef CONFINE_PATH_H
#define CONFINE_PATH_H

#define FMODE_BACKING_EITHER (1u << 24 | 1u << 25)

/* More components than a path of PATH_MAX bytes can have, and its mounts. */
#define PATH_STEPS 4096

struct walk {
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct dentry *root_dentry;
	struct vfsmount *root_mnt;
	__u32 slot;
	__u32 start;
	__u16 flags;
	__u8 done;
};

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - __builtin_preserve_field_info(((struct mount *)0)->mnt, BPF_FIELD_BYTE_OFFSET);
}

static __always_inline struct vfsmount *vfsmount_of(struct mount *m)
{
	return (void *)m + __builtin_preserve_field_info(((struct mount *)0)->mnt, BPF_FIELD_BYTE_OFFSET);
}

/* One step towards the root; returns 1 to end. What BPF_CORE_READ starts from
 * is always a variable of its own: a member of walk would be relocated, too. */
static long walk_step(__u32 i, void *ctx)
{
	struct walk *w = ctx;
	struct dentry *dentry = w->dentry, *parent;
	struct vfsmount *mnt = w->mnt;
	__u32 slot = w->slot, off;
	struct scratch *s;
	long n;

	if (dentry == w->root_dentry && mnt == w->root_mnt) {
		w->done = 1;
		return 1;
	}
	if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
		struct mount *m = mount_of(mnt);
		struct mount *up = BPF_CORE_READ(m, mnt_parent);

		if (!up || up == m) {
			w->flags |= TEXT_UNREACHABLE;
			w->done = 1;
			return 1;
		}
		w->dentry = BPF_CORE_READ(m, mnt_mountpoint);
		w->mnt = vfsmount_of(up);
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	s = bpf_map_lookup_elem(&scratches, &slot);
	if (!s)
		return 1;
	off = s->off;
	if (off > DATA_SIZE - NAME_MAX_SIZE || off - w->start > PATH_MAX_SIZE)
		return 1;
	n = bpf_probe_read_kernel_str(&s->data[off], NAME_MAX_SIZE, BPF_CORE_READ(dentry, d_name.name));
	if (n <= 0)
		return 1;
	s->off = off + n;
	if (parent == dentry || !parent) {
		w->flags |= TEXT_PSEUDO;
		w->done = 1;
		return 1;
	}
	w->dentry = parent;
	return 0;
}

/* Adds the path (dentry, mnt) as the current process sees it. */
static __always_inline void put_path(struct scratch *s, __u32 slot, __u32 which,
				     struct dentry *dentry, struct vfsmount *mnt)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct walk w = {};

	w.dentry = dentry;
	w.mnt = mnt;
	w.root_dentry = BPF_CORE_READ(fs, root.dentry);
	w.root_mnt = BPF_CORE_READ(fs, root.mnt);
	w.slot = slot;
	w.start = s->off;
	if (BPF_CORE_READ(dentry, d_parent) != dentry && !BPF_CORE_READ(dentry, d_hash.pprev))
		w.flags |= TEXT_DELETED;
	bpf_loop(PATH_STEPS, walk_step, &w, 0);
	if (!w.done)
		w.flags |= TEXT_TRUNCATED;
	s->ev.texts[which].len = s->off - w.start;
	s->ev.texts[which].flags = w.flags;
}

/* Whether a file of a stacked file system's lower layer has the path beside it
 * under which the upper one was opened. FMODE_BACKING, which says so, is bit 25
 * until Linux 6.13 and bit 24 since; the other one means something else then,
 * so what lies behind the file has to look like a path. */
static __always_inline int user_path(struct file *file, struct dentry **dentry, struct vfsmount **mnt)
{
	struct backing_file *b = (void *)file;
	struct super_block *sb;
	struct dentry *d;
	struct vfsmount *m;

	if (!bpf_core_field_exists(b->user_path) || !(BPF_CORE_READ(file, f_mode) & FMODE_BACKING_EITHER))
		return 0;
	d = BPF_CORE_READ(b, user_path.dentry);
	m = BPF_CORE_READ(b, user_path.mnt);
	sb = BPF_CORE_READ(d, d_sb);
	if (!sb || sb != BPF_CORE_READ(m, mnt_sb))
		return 0;
	*dentry = d;
	*mnt = m;
	return 1;
}

/* The path under which a file was opened: that of the upper file for the lower
 * file of a stacked file system. */
static __always_inline void file_path(struct file *file, struct dentry **dentry, struct vfsmount **mnt)
{
	if (user_path(file, dentry, mnt))
		return;
	*dentry = BPF_CORE_READ(file, f_path.dentry);
	*mnt = BPF_CORE_READ(file, f_path.mnt);
}

static __always_inline void put_file(struct scratch *s, __u32 slot, __u32 which, struct file *file)
{
	struct dentry *dentry;
	struct vfsmount *mnt;

	file_path(file, &dentry, &mnt);
	s->ev.inode = BPF_CORE_READ(dentry, d_inode, i_ino);
	s->ev.device = BPF_CORE_READ(dentry, d_inode, i_sb, s_dev);
	put_path(s, slot, which, dentry, mnt);
}

static __always_inline __u64 mix(__u64 h, __u64 v)
{
	h ^= v;
	h *= 0x9e3779b97f4a7c15ull;
	return h ^ (h >> 29);
}

/* A number for a file under a path of a root: equal for equal ones. */
static __always_inline __u64 file_hash(struct task_struct *task, struct file *file)
{
	struct dentry *dentry;
	struct vfsmount *mnt;
	__u64 h = 1;

	file_path(file, &dentry, &mnt);
	h = mix(h, (__u64)dentry);
	h = mix(h, (__u64)mnt);
	/* The kernel uses memory and numbers of files that are gone again. */
	h = mix(h, BPF_CORE_READ(dentry, d_name.hash_len));
	h = mix(h, BPF_CORE_READ(dentry, d_inode, i_ino));
	h = mix(h, BPF_CORE_READ(dentry, d_inode, i_generation));
	h = mix(h, (__u64)BPF_CORE_READ(task, fs, root.dentry));
	h = mix(h, (__u64)BPF_CORE_READ(task, fs, root.mnt));
	return h ? h : 1;
}

/* Names above a file's own that belong to its identity. */
#define KEY_PARENTS 4

static __always_inline void mix_key(struct key *k, __u64 v)
{
	k->a = mix(k->a, v);
	k->b = (k->b ^ (v >> 32 | v << 32)) * 0xd6e8feb86659fd93ull;
	k->b ^= k->b >> 32;
}

/* When the content of a file, or what is known about it, was changed last. */
static __always_inline void mix_change(struct key *k, struct inode *inode)
{
	struct inode___611 *i611 = (void *)inode;
	struct inode___66 *i66 = (void *)inode;
	struct inode___old *old = (void *)inode;

	mix_key(k, BPF_CORE_READ(inode, i_size));
	if (bpf_core_field_exists(i611->i_ctime_sec)) {
		mix_key(k, BPF_CORE_READ(i611, i_ctime_sec));
		mix_key(k, BPF_CORE_READ(i611, i_ctime_nsec));
	} else if (bpf_core_field_exists(i66->__i_ctime)) {
		mix_key(k, BPF_CORE_READ(i66, __i_ctime.tv_sec));
		mix_key(k, BPF_CORE_READ(i66, __i_ctime.tv_nsec));
	} else {
		mix_key(k, BPF_CORE_READ(old, i_ctime.tv_sec));
		mix_key(k, BPF_CORE_READ(old, i_ctime.tv_nsec));
	}
}

/* Adds to a key what a file is, under which path of which root, and when it
 * was changed. Returns 0 for a file that no path leads to. */
static __always_inline int mix_file(struct key *k, struct task_struct *task, struct file *file)
{
	struct dentry *dentry, *parent;
	struct vfsmount *mnt;
	struct inode *inode;

	file_path(file, &dentry, &mnt);
	inode = BPF_CORE_READ(dentry, d_inode);
	parent = BPF_CORE_READ(dentry, d_parent);
	if (!inode || parent == dentry || !BPF_CORE_READ(dentry, d_hash.pprev))
		return 0;
	mix_key(k, (__u64)dentry);
	mix_key(k, (__u64)mnt);
	mix_key(k, BPF_CORE_READ(inode, i_ino));
	mix_key(k, BPF_CORE_READ(inode, i_generation));
	mix_change(k, inode);
	mix_key(k, (__u64)BPF_CORE_READ(task, fs, root.dentry));
	mix_key(k, (__u64)BPF_CORE_READ(task, fs, root.mnt));
	for (int i = 0; i < KEY_PARENTS; i++) {
		mix_key(k, BPF_CORE_READ(dentry, d_name.hash_len));
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			break;
		dentry = parent;
	}
	return 1;
}

#endif
