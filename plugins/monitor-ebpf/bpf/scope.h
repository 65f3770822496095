/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Which tasks are watched, and what is known of each. */
#ifndef CONFINE_SCOPE_H
#define CONFINE_SCOPE_H

/* The scope; 0 where it doesn't select. Set before the programs are loaded. */
const volatile __u64 scope_cgroup;
const volatile __u32 scope_mnt_ns;
const volatile __u32 scope_pid_ns;
const volatile __u32 own_mnt_ns; /* of the monitor itself */

#define MAX_CGROUP_DEPTH 32
#define INIT_PID_NS 0xeffffffcu /* PROC_PID_INIT_INO */

/* Level of scope_cgroup in its hierarchy, set before the programs are loaded or
 * once a task in it was seen. */
__u32 scope_level;
__u8 scope_level_known;

/* Thread groups that are in the scope although no state says so: those that ran
 * before the watch, and those that there was no room for a state for. */
struct seed {
	/* When the group's leader began, in ticks since boot; 0 when that isn't
	 * known. Its number may be another's by now. */
	__u64 start;
	__u32 origin;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct seed);
} seeds SEC(".maps");

#define TICK 10000000 /* of /proc/PID/stat, ns: USER_HZ is 100 */

static __always_inline __u64 start_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime) / TICK;
}

/* A bit for each thread group that may be in seeds, by the low bits of its
 * number: what costs least for all the others. User space sets those of
 * seed_bits, programs those of late_bits. */
#define SEED_BITS 65536
__u64 seed_bits[SEED_BITS / 64];
__u64 late_bits[SEED_BITS / 64];

struct state {
	__u64 image; /* file_hash of the executed file */
	__u32 slot; /* of the image, in calls */
	__u32 origin; /* thread group with which this one's came into the scope */
	__u8 named; /* its last call was an execveat, whose descriptor was told */
	__u8 entered; /* its system call passed sys_enter */
	__u32 ended; /* of a group leader: the end of the group was told */
	__u8 killed; /* the call that ends it was told */
	/* What was made executable while the kernel was changing the process's
	 * mappings for another thread; looked at with the next call. */
	__u64 later_addr;
	__u64 later_end;
};

/* Exists for tasks in the scope only; never taken from a task again. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct state);
} states SEC(".maps");

static __always_inline struct state *known_state(struct task_struct *task)
{
	if (!task->bpf_storage)
		return NULL; /* as of most: no map holds anything of it */
	return bpf_task_storage_get(&states, task, NULL, 0);
}

static __always_inline int in_cgroup(void)
{
	if (scope_level_known)
		return bpf_get_current_ancestor_cgroup_id(scope_level) == scope_cgroup;
	for (int level = 0; level < MAX_CGROUP_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			return 0;
		if (id == scope_cgroup) {
			scope_level = level;
			scope_level_known = 1;
			return 1;
		}
	}
	return 0;
}

/* The namespace of the scope, once a task in it was seen: an address to
 * compare with is found sooner than a number. */
__u64 scope_pid_ns_at;

static __always_inline int in_pid_ns(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	struct pid_namespace *ns;
	struct upid *numbers, *own;
	__u32 level;

	if (!pid)
		return 0;
	level = pid->level;
	if (!level)
		return scope_pid_ns == INIT_PID_NS;
	numbers = (void *)pid + __builtin_preserve_field_info(((struct pid *)0)->numbers, BPF_FIELD_BYTE_OFFSET);
	own = (void *)numbers + level * bpf_core_type_size(struct upid);
	ns = BPF_CORE_READ(own, ns);
	if (scope_pid_ns_at)
		return scope_pid_ns_at == (__u64)ns;
	if (BPF_CORE_READ(ns, ns.inum) != scope_pid_ns)
		return 0;
	scope_pid_ns_at = (__u64)ns;
	return 1;
}

static __always_inline __u32 mnt_ns_of(struct task_struct *task)
{
	struct nsproxy *proxy = task->nsproxy;
	struct mnt_namespace *ns;

	if (!proxy)
		return 0; /* it ends */
	ns = proxy->mnt_ns;
	return ns ? ns->ns.inum : 0;
}

static __always_inline int may_be_seed(__u32 tgid)
{
	__u32 bit = tgid % SEED_BITS;

	return !!((seed_bits[bit / 64] | late_bits[bit / 64]) & (1ull << (bit % 64)));
}

/* The origin of a task's thread group that is in seeds, 0 when it isn't. */
static __always_inline __u32 seed_of(struct task_struct *task)
{
	__u32 tgid = task->tgid;
	struct seed *seed;

	if (!may_be_seed(tgid))
		return 0;
	seed = bpf_map_lookup_elem(&seeds, &tgid);
	if (!seed || (seed->start && seed->start != start_of(task)))
		return 0;
	return seed->origin;
}

/* Returns the origin of the current task when it is in the scope by itself,
 * and 0 when it isn't. */
static __always_inline __u32 in_scope(struct task_struct *task)
{
	__u32 tgid = task->tgid;
	__u32 origin = seed_of(task);

	if (origin)
		return origin;
	if (scope_mnt_ns && mnt_ns_of(task) == scope_mnt_ns)
		return tgid;
	if (scope_pid_ns && in_pid_ns(task))
		return tgid;
	if (scope_cgroup && in_cgroup())
		return tgid;
	return 0;
}

/*
 * A bit for each thread group that was looked at and isn't in the scope: calls
 * of all the others shall cost them next to nothing. What can bring a task into
 * the scope later takes the bit away or looks again: a fork, by which a number
 * becomes another's; setns; a move to another cgroup; a seed. Threads that are
 * in the scope while the rest of their group isn't have a state.
 */
#define PID_MAX_LIMIT (4 << 20)
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PID_MAX_LIMIT / 64);
	__type(key, __u32);
	__type(value, __u64);
} outside SEC(".maps");

/* How often programs and user space took away bits that must not be set again
 * by somebody who has looked before. */
volatile __u64 moves;
volatile __u64 seedings;

/* What a fetching atomic instruction returns has to be used somewhere: only
 * then is it one that also orders everything around it. */
#define ordered(fetched) asm volatile("" ::"r"(fetched))

static __always_inline void count_move(void)
{
	ordered(__sync_fetch_and_add(&moves, 1));
}

static __always_inline int known_outside(struct task_struct *task)
{
	__u32 tgid = task->tgid, at = tgid / 64;
	__u64 *word = bpf_map_lookup_elem(&outside, &at);

	return word && (*word & (1ull << (tgid % 64)));
}

static __always_inline void clear_outside(__u32 tgid)
{
	__u32 at = tgid / 64;
	__u64 *word = bpf_map_lookup_elem(&outside, &at), bit = 1ull << (tgid % 64);

	if (word && (*word & bit))
		__sync_fetch_and_and(word, ~bit);
}

/* Notes that a thread group was found outside, by a look that began when there
 * had been so many moves and seedings. */
static __always_inline void set_outside(__u32 tgid, __u64 before)
{
	__u32 at = tgid / 64;
	__u64 *word = bpf_map_lookup_elem(&outside, &at);

	if (!word || may_be_seed(tgid))
		return;
	ordered(__sync_fetch_and_or(word, 1ull << (tgid % 64)));
	if (moves + seedings != before)
		clear_outside(tgid);
}

/* Has each call of a thread group looked at. */
static __always_inline void look_always(__u32 tgid)
{
	__u32 bit = tgid % SEED_BITS;

	__sync_fetch_and_or(&late_bits[bit / 64], 1ull << (bit % 64));
	count_move();
	clear_outside(tgid);
}

/* Puts a task in the scope for which no state could be made: the kernel refuses
 * that while another task on the same CPU is in the middle of the same. */
static __always_inline void add_seed(struct task_struct *task, __u32 origin)
{
	struct seed seed = {.origin = origin, .start = start_of(task)};
	__u32 tgid = BPF_CORE_READ(task, tgid);

	if (bpf_map_update_elem(&seeds, &tgid, &seed, BPF_ANY))
		count_lost(LOST_STATE);
	look_always(tgid);
}

/* Whether a task in the scope's cgroup hasn't entered the container yet: the
 * part of a runtime that is going to, and still sees the host's files. */
static __always_inline int outside_container(struct task_struct *task)
{
	__u32 ns;

	if (!scope_mnt_ns || scope_mnt_ns == own_mnt_ns)
		return 0;
	ns = mnt_ns_of(task);
	return ns == own_mnt_ns;
}

/* Begins to watch a task that ran before: names its image. */
static __always_inline int send_image(struct task_struct *task, __u64 image, __u32 slot)
{
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	struct scratch *s;

	if (!exe)
		return 0;
	s = new_event(slot, KIND_IMAGE);
	if (!s)
		return 0;
	s->ev.pid = bpf_get_current_pid_tgid() >> 32;
	s->ev.image = image;
	s->ev.value = outside_container(task);
	put_file(s, slot, TEXT_PATH, exe);
	send_event(s, 0);
	return 0;
}

/* The current task as the scope sees it. */
struct view {
	__u64 image; /* 0 when the task isn't watched */
	__u32 slot;
	__u32 origin;
	__u8 found; /* the watch of it begins here */
};

static __always_inline void view_state(struct state *st, struct view *v)
{
	v->image = st->image;
	v->slot = st->slot;
	v->origin = st->origin;
}

/* Looks whether a task without a state is in the scope, and fills v then.
 * Returns its new state, NULL when there was no room for one: then it is found
 * again at its next call. */
static __always_inline struct state *find_state(struct task_struct *task, __u32 slot, struct view *v)
{
	__u64 before = moves + seedings;
	struct state *st;
	struct file *exe;

	v->origin = in_scope(task);
	if (!v->origin) {
		set_outside(task->tgid, before);
		return NULL;
	}
	exe = BPF_CORE_READ(task, mm, exe_file);
	if (!exe)
		return NULL; /* a thread of the kernel, or one that ends */
	v->image = file_hash(task, exe);
	v->slot = slot_of(v->image);
	v->found = 1;
	send_image(task, v->image, slot);
	st = bpf_task_storage_get(&states, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (st) {
		st->image = v->image;
		st->slot = v->slot;
		st->origin = v->origin;
	}
	return st;
}

/* Fills v. Returns the state, or NULL when the task isn't watched or there was
 * no room for one. */
static __always_inline struct state *current_state(struct task_struct *task, __u32 slot, struct view *v)
{
	struct state *st = known_state(task);

	if (!st)
		return known_outside(task) ? NULL : find_state(task, slot, v);
	view_state(st, v);
	return st;
}

#endif
