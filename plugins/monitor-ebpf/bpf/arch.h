/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What differs between architectures: call numbers and where registers lie.
 * Tasks and registers come from the kernel with their types, so that they are
 * read as they are: this runs for every call on the machine. */
#ifndef CONFINE_ARCH_H
#define CONFINE_ARCH_H

/* arguments of mmap, mprotect and their like as they are when the call ends */
struct map_call {
	__u64 addr;
	__u64 len;
	__u32 prot;
	__u8 is_mmap; /* the address is what the call returned */
	__s32 fd; /* of mmap, -1 without a file */
	__u8 any_prot; /* prot is unknown; the mapping itself tells */
};

#define X32_BIT 0x40000000 /* of x86's call numbers */

#define AUDIT_ARCH_I386 0x40000003u
#define AUDIT_ARCH_X86_64 0xc000003eu
#define AUDIT_ARCH_ARM 0x40000028u
#define AUDIT_ARCH_AARCH64 0xc00000b7u

#if defined(__TARGET_ARCH_x86)

#define TS_COMPAT 0x2
#define ARCH_NATIVE AUDIT_ARCH_X86_64
#define ARCH_COMPAT AUDIT_ARCH_I386

static __always_inline int task_in_compat(struct task_struct *task)
{
	return !!(task->thread_info.status & TS_COMPAT);
}

static __always_inline long regs_nr(struct pt_regs *regs)
{
	return (long)regs->orig_ax;
}

static __always_inline __u64 regs_ip(struct pt_regs *regs)
{
	return regs->ip;
}

/* The registers of a call's six arguments. Those of a 64-bit call are as they
 * were when it was made, whatever became of it. */
static __always_inline void regs_args(struct pt_regs *regs, int compat, __u64 *args)
{
	if (compat) {
		args[0] = (__u32)regs->bx;
		args[1] = (__u32)regs->cx;
		args[2] = (__u32)regs->dx;
		args[3] = (__u32)regs->si;
		args[4] = (__u32)regs->di;
		args[5] = (__u32)regs->bp;
		return;
	}
	args[0] = regs->di;
	args[1] = regs->si;
	args[2] = regs->dx;
	args[3] = regs->r10;
	args[4] = regs->r8;
	args[5] = regs->r9;
}

static __always_inline int is_execveat(long nr, int compat)
{
	return nr == (compat ? 358 : 322);
}

static __always_inline int execveat_fd(struct pt_regs *regs, int compat)
{
	return compat ? (int)regs->bx : (int)regs->di;
}

/* By any of the ABIs; taking another call for it does no harm. */
static __always_inline int is_setns(long nr)
{
	return nr == 308 || nr == 346 || nr == X32_BIT + 308;
}

/* Fills c and returns 1 when nr can make a mapping executable. */
static __always_inline int map_call(struct pt_regs *regs, long nr, int compat, struct map_call *c)
{
	if (compat) {
		if (nr != 90 && nr != 192 && nr != 125 && nr != 380)
			return 0;
		c->addr = regs->bx & 0xffffffff;
		c->len = regs->cx & 0xffffffff;
		c->prot = regs->dx;
		c->is_mmap = nr == 90 || nr == 192;
		c->any_prot = nr == 90; /* its arguments lie in memory */
		c->fd = nr == 192 ? (int)regs->di : -1;
		return 1;
	}
	/* mmap, mprotect, pkey_mprotect */
	if (nr != 9 && nr != 10 && nr != 329)
		return 0;
	c->addr = regs->di;
	c->len = regs->si;
	c->prot = regs->dx;
	c->is_mmap = nr == 9;
	c->fd = c->is_mmap ? (int)regs->r8 : -1;
	return 1;
}

#elif defined(__TARGET_ARCH_arm64)

#define TIF_32BIT 22
#define ARCH_NATIVE AUDIT_ARCH_AARCH64
#define ARCH_COMPAT AUDIT_ARCH_ARM

static __always_inline int task_in_compat(struct task_struct *task)
{
	return !!(task->thread_info.flags & (1UL << TIF_32BIT));
}

static __always_inline long regs_nr(struct pt_regs *regs)
{
	return regs->syscallno;
}

static __always_inline __u64 regs_ip(struct pt_regs *regs)
{
	return regs->pc;
}

static __always_inline void regs_args(struct pt_regs *regs, int compat, __u64 *args)
{
	args[0] = regs->orig_x0;
	args[1] = regs->regs[1];
	args[2] = regs->regs[2];
	args[3] = regs->regs[3];
	args[4] = regs->regs[4];
	args[5] = regs->regs[5];
}

static __always_inline int is_execveat(long nr, int compat)
{
	return nr == (compat ? 387 : 281);
}

static __always_inline int execveat_fd(struct pt_regs *regs, int compat)
{
	return (int)regs->orig_x0;
}

static __always_inline int is_setns(long nr)
{
	return nr == 268 || nr == 375;
}

static __always_inline int map_call(struct pt_regs *regs, long nr, int compat, struct map_call *c)
{
	int is_mmap = nr == (compat ? 192 : 222);

	if (!is_mmap && nr != (compat ? 125 : 226) && nr != (compat ? 394 : 288))
		return 0;
	c->addr = regs->orig_x0;
	c->len = regs->regs[1];
	c->prot = regs->regs[2];
	c->is_mmap = is_mmap;
	c->fd = is_mmap ? (int)regs->regs[4] : -1;
	return 1;
}

#endif

#endif
