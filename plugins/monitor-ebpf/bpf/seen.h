/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * What was told already. An execution or a mapping that is equal to one that
 * was sent is counted instead of sent again: the same file, unchanged since,
 * under the same path of the same root; for an execution also asked for by the
 * same name from the same folder, for a mapping in the same program. A change
 * within one tick of the file system's clock isn't seen, as by everybody who
 * compares times. What can't be told apart that way is always sent: scripts
 * (the kernel doesn't tell the script's own file), files without a path, and
 * what execveat starts.
 */
#ifndef CONFINE_SEEN_H
#define CONFINE_SEEN_H

/* Whether each event is to be sent; set before the programs are loaded. */
const volatile __u8 every_event;

/* Longer names are sent each time. */
#define KEY_NAME 256

/* How often something was repeated, by key. When it is full, what isn't in it
 * is sent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct key);
	__type(value, __u64);
} seen SEC(".maps");

/* What was counted instead of sent; an index into repeats. */
enum repeat {
	REPEAT_EXEC = 0,
	REPEAT_MAPPING = 1,
	REPEAT_EXIT = 2,
	REPEAT_MAX = 3,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REPEAT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} repeats SEC(".maps");

static __always_inline void count_repeat(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&repeats, &what);

	if (n)
		(*n)++;
}

enum sight {
	SIGHT_FIRST, /* to be sent at once */
	SIGHT_AGAIN, /* to be sent, but not in a hurry */
	SIGHT_COUNTED, /* not to be sent */
};

/* Notes that something was seen. */
static __always_inline enum sight note(struct key *k, enum repeat what)
{
	__u64 *times = bpf_map_lookup_elem(&seen, k), none = 0;

	if (!times) {
		if (bpf_map_update_elem(&seen, k, &none, BPF_NOEXIST) != -EEXIST)
			return SIGHT_FIRST;
		/* Another processor was faster. */
		times = bpf_map_lookup_elem(&seen, k);
	}
	if (every_event)
		return SIGHT_AGAIN;
	if (!times)
		return SIGHT_FIRST;
	__sync_fetch_and_add(times, 1);
	count_repeat(what);
	return SIGHT_COUNTED;
}

/* Forgets what could not be sent: the next one is a first one again. */
static __always_inline void forget(struct key *k)
{
	bpf_map_delete_elem(&seen, k);
}

/* Adds a name to a key; returns 0 when it is too long. The scratch memory of
 * the slot is written to. */
static __always_inline int mix_name(struct key *k, struct scratch *s, const char *name)
{
	long n = bpf_probe_read_kernel_str(s->data, KEY_NAME, name);
	__u64 a = 0xcbf29ce484222325ull, b = 0x84222325cbf29ce4ull;

	if (n <= 0 || n >= KEY_NAME)
		return 0;
	for (int i = 0; i < KEY_NAME; i++) {
		if (i >= n)
			break;
		a = (a ^ (__u8)s->data[i]) * 0x100000001b3ull;
		b = (b + (__u8)s->data[i]) * 0x9e3779b97f4a7c15ull;
	}
	k->a = mix(k->a, a);
	k->b = mix(k->b, b);
	return 1;
}

#endif
