/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Mappings and descriptors of the current process. */
#ifndef CONFINE_VMA_H
#define CONFINE_VMA_H

#define VM_EXEC 0x4
#define EBUSY 16

struct vma {
	struct file *file;
	__u64 start;
	__u64 end;
	__u64 flags;
	__u64 offset; /* of start, in the file, bytes */
};

static long take_vma(struct task_struct *task, struct vm_area_struct *vma, void *ctx)
{
	struct vma *v = ctx;

	v->file = BPF_CORE_READ(vma, vm_file);
	v->start = BPF_CORE_READ(vma, vm_start);
	v->end = BPF_CORE_READ(vma, vm_end);
	v->flags = BPF_CORE_READ(vma, vm_flags);
	v->offset = BPF_CORE_READ(vma, vm_pgoff) << 12;
	return 0;
}

/* Fills v with the mapping at addr. -EBUSY when the kernel is changing the
 * process's mappings just now, -ENOENT when there is none. */
static __always_inline long vma_at(struct task_struct *task, __u64 addr, struct vma *v)
{
	return bpf_find_vma(task, addr, take_vma, v, 0);
}

static __always_inline int same_file(struct file *a, struct file *b)
{
	struct dentry *da, *db;
	struct vfsmount *m;

	file_path(a, &da, &m);
	file_path(b, &db, &m);
	return da == db;
}

static __always_inline struct file *file_at(struct task_struct *task, unsigned int fd)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(fdt, fd);
	struct file *file = NULL;

	if (fd < BPF_CORE_READ(fdt, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

#endif
