/*
 * A plugin of qemu-user that records what a program executes: each block of
 * instructions once, and each system call with the instruction that makes it.
 * Programs that the program executes run under qemu-user with this plugin, too.
 *
 * Arguments: dir=FOLDER of the records and of the masks (masks.TARGET: for each
 * number of a call a byte whose bits say which arguments to record),
 * plugin=FILE, which is this one, cpu=MODEL, program=FILE that is executed.
 *
 * A record is a file that is mapped, so that neither a program that closes
 * everything nor a signal loses anything, and that processes share after a
 * fork: its first 8 bytes count those that follow, which are lines
 *
 *   x PATH                        the file that is executed
 *   b OFFSET LAST PATH            a block from its first to its last instruction
 *   c OFFSET NUMBER A0...A5 PATH  a call
 *   n PATH                        this image is executed without the plugin
 *
 * with offsets in the file PATH ("-" for code that lies in no file).
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What is used of version 1 of the interface, as its documentation has it. */
typedef uint64_t id_t64;
struct block;
struct instruction;
struct info {
	const char *target;
	struct { int min, cur; } version;
	bool whole_system;
};
extern int qemu_plugin_install(id_t64, const struct info *, int, char **);
extern void qemu_plugin_register_vcpu_tb_trans_cb(id_t64, void (*)(id_t64, struct block *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct block *, void (*)(unsigned, void *), int flags, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(id_t64, void (*)(id_t64, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern void qemu_plugin_register_vcpu_syscall_ret_cb(id_t64, void (*)(id_t64, unsigned, int64_t, int64_t));
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct instruction *);
extern void *qemu_plugin_insn_haddr(const struct instruction *);

int qemu_plugin_version = 1;

static const char *dir, *plugin, *cpu;
static char emulators[PATH_MAX]; /* folder of qemu-user's programs */
static char program[PATH_MAX];   /* the file that is executed */

/* The record. */

enum { RECORD = 1 << 28 };
static struct { uint64_t used; char text[]; } *record;

static void open_record(void)
{
	char path[PATH_MAX];
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(path, sizeof path, "%s/%lld.%09ld.%d.record", dir, (long long)now.tv_sec, now.tv_nsec, getpid());
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0 || ftruncate(fd, RECORD) < 0)
		return;
	void *p = mmap(NULL, RECORD, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (p != MAP_FAILED)
		record = p;
	close(fd);
}

static void note(const char *format, ...)
{
	char line[PATH_MAX + 256];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	if (!record || n <= 0 || n >= (int)sizeof line)
		return;
	uint64_t at = __atomic_fetch_add(&record->used, n, __ATOMIC_RELAXED);
	if (at + n <= RECORD - sizeof *record)
		memcpy(record->text + at, line, n);
}

/* The files that are mapped. Only translation uses the list, one at a time. */

struct map { uintptr_t start, end; uint64_t offset; char *path; };
static struct map *maps;
static size_t count;
static bool stale = true;

static char *kept(const char *path)
{
	static char **all;
	static size_t n;
	for (size_t i = n; i-- > 0;)
		if (!strcmp(all[i], path))
			return all[i];
	all = realloc(all, (n + 1) * sizeof *all);
	return all[n++] = strdup(path);
}

static void read_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	if (!f)
		return;
	__atomic_store_n(&stale, false, __ATOMIC_SEQ_CST);
	char line[PATH_MAX + 256];
	count = 0;
	while (fgets(line, sizeof line, f)) {
		struct map m = {0};
		int at = 0;
		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %n", &m.start, &m.end, &m.offset, &at) != 3 || line[at] != '/')
			continue;
		line[strcspn(line, "\n")] = 0;
		m.path = kept(line + at);
		maps = realloc(maps, (count + 1) * sizeof *maps);
		maps[count++] = m;
	}
	fclose(f);
}

static const struct map *find(uintptr_t addr)
{
	for (size_t i = 0; i < count; i++)
		if (maps[i].start <= addr && addr < maps[i].end)
			return &maps[i];
	return NULL;
}

/* Blocks. */

struct seen { uint64_t first, last; const char *path; bool noted; };
static __thread struct seen *current;
static uintptr_t base; /* what an address of the program lacks to one of this process */

static void executed(unsigned cpu_index, void *data)
{
	struct seen *s = current = data;
	if (!s->noted) {
		s->noted = true;
		note("b %lx %lx %s\n", s->first, s->last, s->path);
	}
}

static void translated(id_t64 id, struct block *b)
{
	struct instruction *first = qemu_plugin_tb_get_insn(b, 0);
	struct instruction *last = qemu_plugin_tb_get_insn(b, qemu_plugin_tb_n_insns(b) - 1);
	uintptr_t addr = (uintptr_t)qemu_plugin_insn_haddr(first);
	base = addr - qemu_plugin_insn_vaddr(first);
	const struct map *m = __atomic_load_n(&stale, __ATOMIC_SEQ_CST) ? NULL : find(addr);
	if (!m) {
		read_maps();
		m = find(addr);
	}
	struct seen *s = calloc(1, sizeof *s);
	s->path = m ? m->path : "-";
	s->first = m ? addr - m->start + m->offset : qemu_plugin_insn_vaddr(first);
	s->last = s->first + (qemu_plugin_insn_vaddr(last) - qemu_plugin_insn_vaddr(first));
	qemu_plugin_register_vcpu_tb_exec_cb(b, executed, 0, s);
}

/* Executions: this process runs the emulator on what the program executes. */

static struct { const char *target; int machine, class, execve, execveat; } targets[] = {
	{"x86_64", EM_X86_64, ELFCLASS64, 59, 322},
	{"i386", EM_386, ELFCLASS32, 11, 358},
	{"aarch64", EM_AARCH64, ELFCLASS64, 221, 281},
}, *target;

static bool peek(void *to, uint64_t from, size_t n)
{
	struct iovec l = {to, n}, r = {(void *)(uintptr_t)(from + base), n};
	return process_vm_readv(getpid(), &l, 1, &r, 1, 0) == (ssize_t)n;
}

static char *text(uint64_t from)
{
	char *s = NULL;
	for (size_t n = 0;; n++) {
		if (n % 4096 == 0)
			s = realloc(s, n + 4096);
		if (!peek(s + n, from + n, 1)) {
			free(s);
			return NULL;
		}
		if (!s[n])
			return s;
	}
}

/* texts returns a list of texts after room for some more. */
static char **texts(uint64_t from, size_t room, size_t *n)
{
	char **list = NULL;
	size_t width = target->class == ELFCLASS64 ? 8 : 4;
	for (*n = room;; ++*n, from += width) {
		uint64_t p = 0;
		list = realloc(list, (*n + 1) * sizeof *list);
		if (from && !peek(&p, from, width))
			return NULL;
		list[*n] = p ? text(p) : NULL;
		if (!p)
			return list;
		if (!list[*n])
			return NULL;
	}
}

/* follow executes a file under an emulator, and returns when it can't. */
static void follow(const char *path, char **argv, size_t argc, char **envp, int depth)
{
	char head[PATH_MAX] = "", emulator[PATH_MAX + 32], options[3 * PATH_MAX];
	struct stat st;
	int fd = stat(path, &st) || !S_ISREG(st.st_mode) || access(path, X_OK) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t n = read(fd, head, sizeof head - 1);
	close(fd);
	if (n > 2 && head[0] == '#' && head[1] == '!' && depth < 4) { /* argv has room for two in front */
		head[strcspn(head, "\n")] = 0;
		char *name = head + 2 + strspn(head + 2, " \t");
		char *end = name + strcspn(name, " \t");
		char *rest = end + strspn(end, " \t");
		*end = 0;
		for (char *p = rest + strlen(rest); p > rest && (p[-1] == ' ' || p[-1] == '\t');)
			*--p = 0;
		char **list = calloc(argc + 4, sizeof *list);
		size_t k = 0;
		list[k++] = strdup(name);
		if (*rest)
			list[k++] = strdup(rest);
		list[k++] = strdup(path);
		for (size_t i = 1; i < argc; i++)
			list[k++] = argv[i];
		follow(list[0], list, k, envp, depth + 1);
		return;
	}
	Elf64_Ehdr *h = (void *)head;
	if (n < (ssize_t)sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG))
		return;
	const char *name = NULL;
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
		if (targets[i].machine == h->e_machine && targets[i].class == h->e_ident[EI_CLASS])
			name = targets[i].target;
	if (!name)
		return;
	snprintf(emulator, sizeof emulator, "%s/qemu-%s", emulators, name);
	snprintf(options, sizeof options, "%s,dir=%s,plugin=%s,cpu=%s,program=%s", plugin, dir, plugin, cpu, path);
	size_t vars = 0;
	while (envp[vars])
		vars++;
	char **list = calloc(argc + 16 + 2 * vars, sizeof *list), **env = calloc(vars + 1, sizeof *env);
	size_t k = 0, e = 0;
	list[k++] = emulator;
	list[k++] = "-cpu";
	list[k++] = (char *)cpu;
	list[k++] = "-plugin";
	list[k++] = options;
	list[k++] = "-0";
	list[k++] = argc ? argv[0] : "";
	for (size_t i = 0; i < vars; i++) {
		if (strncmp(envp[i], "LD_", 3)) {
			env[e++] = envp[i];
			continue;
		}
		list[k++] = "-E"; /* it is for the loader of the program, not of the emulator */
		list[k++] = envp[i];
	}
	list[k++] = (char *)path;
	for (size_t i = 1; i < argc; i++)
		list[k++] = argv[i];
	execve(emulator, list, env);
}

static void execution(int dirfd, uint64_t name, uint64_t argv, uint64_t envp)
{
	size_t argc, vars;
	char *given = text(name), path[2 * PATH_MAX];
	char **args = texts(argv, 0, &argc), **env = texts(envp, 0, &vars);
	int saved = errno;
	if (!given || !args || !env)
		return;
	if (!strcmp(given, "/proc/self/exe"))
		snprintf(path, sizeof path, "%s", program);
	else if (*given == '/' || dirfd == AT_FDCWD)
		snprintf(path, sizeof path, "%s", given);
	else
		snprintf(path, sizeof path, "/proc/self/fd/%d%s%s", dirfd, *given ? "/" : "", given);
	if (access(path, X_OK) == 0) {
		follow(path, args, argc, env, 0);
		note("n %s\n", path);
	}
	errno = saved;
}

/* Calls. */

static unsigned char masks[1024];
static uint64_t made[1 << 20]; /* hashes of those that were noted */

static bool first_time(uint64_t hash)
{
	const size_t n = sizeof made / sizeof *made;
	for (size_t i = hash % n, k = 0; k < 64; i = (i + 1) % n, k++) {
		uint64_t old = 0;
		if (__atomic_compare_exchange_n(&made[i], &old, hash, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return true;
		if (old == hash)
			return false;
	}
	return true;
}

static void call(id_t64 id, unsigned cpu_index, int64_t number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7)
{
	static const struct seen nowhere = {.path = "-"};
	uint64_t args[6] = {a0, a1, a2, a3, a4, a5};
	const struct seen *s = current ? current : &nowhere;
	uint64_t hash = (uintptr_t)s->path ^ s->last * 31 ^ number << 40;
	unsigned mask = number >= 0 && number < (int64_t)sizeof masks ? masks[number] : 0;
	for (int i = 0; i < 6; i++) {
		args[i] = mask >> i & 1 ? (uint32_t)args[i] : 0;
		hash = (hash ^ args[i]) * 0x9e3779b97f4a7c15 + (hash >> 29);
	}
	if (first_time(hash | 1))
		note("c %lx %ld %lx %lx %lx %lx %lx %lx %s\n", s->last, number, args[0], args[1], args[2], args[3], args[4], args[5], s->path);
	if (number == target->execve)
		execution(AT_FDCWD, a0, a1, a2);
	else if (number == target->execveat)
		execution(a0, a1, a2, a3);
}

/* Any call may have changed what is mapped; the next translation looks. */
static void returned(id_t64 id, unsigned cpu_index, int64_t number, int64_t value)
{
	uint64_t address = value;
	if (address < -4095ull && address >= 4096) /* mmap, mremap, shmat */
		__atomic_store_n(&stale, true, __ATOMIC_SEQ_CST);
}

int qemu_plugin_install(id_t64 id, const struct info *info, int argc, char **argv)
{
	const char *given = "";
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "dir=", 4))
			dir = argv[i] + 4;
		else if (!strncmp(argv[i], "plugin=", 7))
			plugin = argv[i] + 7;
		else if (!strncmp(argv[i], "cpu=", 4))
			cpu = argv[i] + 4;
		else if (!strncmp(argv[i], "program=", 8))
			given = argv[i] + 8;
	}
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
		if (!strcmp(targets[i].target, info->target))
			target = &targets[i];
	ssize_t n = readlink("/proc/self/exe", emulators, sizeof emulators - 1);
	if (!dir || !plugin || !cpu || !target || n < 0 || !realpath(given, program))
		return 1;
	*strrchr(emulators, '/') = 0;
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/masks.%s", dir, target->target);
	FILE *f = fopen(path, "re");
	if (f) {
		if (fread(masks, 1, sizeof masks, f) == 0)
			memset(masks, 0, sizeof masks);
		fclose(f);
	}
	open_record();
	note("x %s\n", program);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_vcpu_syscall_cb(id, call);
	qemu_plugin_register_vcpu_syscall_ret_cb(id, returned);
	return 0;
}
