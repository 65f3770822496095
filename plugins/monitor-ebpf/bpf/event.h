/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What goes through the ring buffer, and the memory it is put together in. */
#ifndef CONFINE_EVENT_H
#define CONFINE_EVENT_H

enum kind {
	KIND_EXEC = 1,
	KIND_MAPPING = 2,
	KIND_EXIT = 3,
	KIND_DENIED = 4,
	KIND_IMAGE = 5, /* names the image of a process that ran before the watch */
	KIND_UNMAPPED = 6, /* an executable mapping whose file couldn't be read here */
	KIND_DIRFD = 7, /* names the file that execveat's descriptor stands for */
};

/* Why something got lost; an index into lost. */
enum loss {
	LOST_RING = 0,
	LOST_STATE = 1,
	LOST_IMAGES = 2,
	LOST_NUMBER = 3,
	LOST_RANGES = 4,
	LOST_PLACES = 5,
	LOST_MAX = 6,
};

enum text_flag {
	TEXT_DELETED = 1,
	TEXT_PSEUDO = 2, /* no place in any file system: memfd and the like */
	TEXT_UNREACHABLE = 4, /* not below the process's root */
	TEXT_TRUNCATED = 8,
};

/* A path (components, the last one first, each with its NUL) or a string. */
struct text {
	__u16 len;
	__u16 flags;
};

enum slot_text {
	TEXT_PATH = 0,
	TEXT_FILENAME = 1,
	TEXT_INTERP = 2,
	TEXT_CWD = 3,
	TEXT_ARGS = 4,
	TEXT_MAX = 5,
};

/* Tells what was seen apart; see seen.h. */
struct key {
	__u64 a;
	__u64 b;
};

struct event {
	__u64 time;
	__u32 kind;
	__u32 pid;
	__u32 ppid;
	__s32 value; /* exit status, call number, or 1 for an image outside of the container */
	__u64 image;
	__u64 inode;
	__u32 device;
	__u32 arch;
	__u64 addr; /* ip of a denied call, or start of a mapping */
	__u64 offset; /* in the object, or length of the mapping */
	__s64 ret;
	__s32 signal;
	__u32 vma_error;
	char comm[16];
	struct text texts[TEXT_MAX];
	__u32 origin;
	struct key key;
	__u64 cgroup;
	__u64 args[6]; /* of a denied call */
};

#define DATA_SIZE 16384
#define NAME_MAX_SIZE 256
#define PATH_MAX_SIZE 4096
#define ARGS_MAX_SIZE 1024

struct scratch {
	struct event ev;
	char data[DATA_SIZE]; /* follows ev directly: both go out in one piece */
	__u32 off; /* used bytes of data */
};

/* Each program has a slot of its own: a program doesn't interrupt itself, but
 * another one may run meanwhile on the same CPU where the kernel allows it. */
enum slot {
	SLOT_EXEC,
	SLOT_ENTER,
	SLOT_EXIT,
	SLOT_FORK,
	SLOT_END,
	SLOT_MAX,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOT_MAX);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOST_MAX);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void count_lost(__u32 why)
{
	__u64 *n = bpf_map_lookup_elem(&lost, &why);

	if (n)
		(*n)++;
}

static __always_inline struct scratch *new_event(__u32 slot, __u32 kind)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return NULL;
	__builtin_memset(&s->ev, 0, sizeof(s->ev));
	s->off = 0;
	s->ev.kind = kind;
	s->ev.time = bpf_ktime_get_boot_ns();
	return s;
}

/* How much may lie in the ring before its reader is woken for what can wait,
 * and how much more before it is woken again. */
#define WAKE_STEP (256 << 10)

/* Sends what can wait: user space looks for it now and then. */
static __always_inline long send_quiet(void *data, __u64 size)
{
	__u64 before = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
	__u64 flags = BPF_RB_NO_WAKEUP;

	if (before / WAKE_STEP != (before + size) / WAKE_STEP)
		flags = BPF_RB_FORCE_WAKEUP;
	return bpf_ringbuf_output(&ring, data, size, flags);
}

/* Returns 0, or an error when the event is lost (and counted). */
static __always_inline long send_event(struct scratch *s, int quiet)
{
	__u32 off = s->off;
	long err;

	if (off > DATA_SIZE)
		off = DATA_SIZE;
	if (quiet)
		err = send_quiet(s, sizeof(s->ev) + off);
	else
		err = bpf_ringbuf_output(&ring, s, sizeof(s->ev) + off, 0);
	if (err)
		count_lost(LOST_RING);
	return err;
}

/* Adds a string of the kernel, of less than size bytes. */
static __always_inline void put_string(struct scratch *s, __u32 which, const char *str, __u32 size)
{
	__u32 off = s->off;
	long n;

	if (off > DATA_SIZE - PATH_MAX_SIZE) {
		s->ev.texts[which].flags |= TEXT_TRUNCATED;
		return;
	}
	n = bpf_probe_read_kernel_str(&s->data[off], size, str);
	if (n <= 0) {
		s->ev.texts[which].flags |= TEXT_TRUNCATED;
		return;
	}
	s->ev.texts[which].len = n;
	s->off = off + n;
}

/* Adds the beginning of the current process's arguments, each with its NUL. */
static __always_inline void put_args(struct scratch *s, struct task_struct *task)
{
	__u64 start = BPF_CORE_READ(task, mm, arg_start);
	__u64 size = BPF_CORE_READ(task, mm, arg_end) - start;
	__u32 off = s->off;

	if (size > ARGS_MAX_SIZE)
		size = ARGS_MAX_SIZE;
	if (off > DATA_SIZE - ARGS_MAX_SIZE)
		return;
	if (bpf_probe_read_user(&s->data[off], size, (void *)start))
		return;
	s->ev.texts[TEXT_ARGS].len = size;
	s->off = off + size;
}

#endif
