package syscalls

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Parameter is one parameter of a call as the kernel declares it.
type Parameter struct{ Name, Type string }

type signature struct {
	name       string
	parameters []Parameter
}

type constant struct {
	name  string
	value uint64
	// arch is the architecture that alone has this value, "" for all.
	arch string
}

// Parameters returns the parameters of a call of the 64-bit tables, nil when
// they aren't known. They are read from the tracepoints of a running kernel
// (internal/capture).
func Parameters(name string) []Parameter {
	i, ok := slices.BinarySearchFunc(signatures[:], name, func(s signature, name string) int { return strings.Compare(s.name, name) })
	if !ok {
		return nil
	}
	return signatures[i].parameters
}

// choosing are the names that kernel developers give to parameters that choose
// what a call does, unlike those that say to what: descriptors, sizes,
// addresses, ids.
var choosing = []string{
	"advice", "at_flags", "attr_flags", "behavior", "clone_flags", "cmd", "event_f_flags", "family", "flag", "flags", "func", "how",
	"level", "mode", "msgflg", "oflag", "op", "opcode", "operation", "option", "options", "optname", "personality", "policy", "prot", "protocol",
	"request", "resource", "semflg", "shmflg", "swap_flags", "turn_on", "type", "unshare_flags", "whence", "which",
}

// unseen are the calls that code makes which the kernel itself maps into
// programs: the functions of the vDSO (vdso(7)) that fall back to a call. No
// analysis of files sees their sites.
var unseen = []string{"clock_getres", "clock_gettime", "getcpu", "getrandom", "gettimeofday", "time"}

// Chooses returns the positions of the parameters of a call that choose what
// it does, and that a profile can therefore usefully state conditions on:
// numbers, never pointers. It is nil for calls whose sites can't all be seen.
func Chooses(name string) []int { return selectors()[name] }

var selectors = sync.OnceValue(func() map[string][]int {
	m := map[string][]int{}
	for _, s := range signatures {
		if slices.Contains(unseen, s.name) {
			continue
		}
		for i, p := range s.parameters {
			if slices.Contains(choosing, p.Name) && !strings.Contains(p.Type, "*") && p.Type != "umode_t" {
				m[s.name] = append(m[s.name], i)
			}
		}
	}
	return m
})

// meanings says which constants the values of a parameter are named after; key:
// call and parameter, or the parameter alone. A "|" before a group says that its
// constants are ored.
var meanings = map[string]string{
	"arch_prctl.option": "arch_prctl", "bpf.cmd": "bpf", "clone.clone_flags": "|clone", "unshare.unshare_flags": "|clone",
	"setns.flags": "|clone", "epoll_ctl.op": "epoll_ctl", "epoll_create1.flags": "|fdflags", "eventfd2.flags": "|eventfd",
	"fadvise64.advice": "fadvise", "fallocate.mode": "|fallocate", "family": "family", "fcntl.cmd": "fcntl",
	"pipe2.flags": "|fdflags", "dup3.flags": "|fdflags", "flock.cmd": "|flock", "futex.op": "|futex", "inotify_init1.flags": "|inotify",
	"ioctl.cmd": "ioctl", "getitimer.which": "itimer", "setitimer.which": "itimer", "keyctl.option": "keyctl", "level": "level",
	"madvise.behavior": "madvise", "process_madvise.behavior": "madvise", "mmap.flags": "|map",
	"membarrier.cmd": "membarrier", "memfd_create.flags": "|memfd", "mlockall.flags": "|mlockall", "mount.flags": "|mount",
	"mremap.flags": "|mremap", "msync.flags": "|msync", "open.flags": "|open", "openat.flags": "|open", "mq_open.oflag": "|open",
	"personality.personality": "|personality", "prctl.option": "prctl", "getpriority.which": "prio", "setpriority.which": "prio",
	"prot": "|prot", "ptrace.request": "ptrace", "renameat2.flags": "|rename", "resource": "rlimit",
	"sched_setscheduler.policy": "|sched", "sched_get_priority_max.policy": "|sched", "sched_get_priority_min.policy": "|sched",
	"seccomp.op": "seccomp", "shutdown.how": "shutdown", "rt_sigprocmask.how": "sigmask", "accept4.flags": "|sockflags",
	"socket.type": "|socktype", "socketpair.type": "|socktype", "signalfd4.flags": "|fdflags",
	"splice.flags": "|splice", "tee.flags": "|splice", "vmsplice.flags": "|splice",
	"timerfd_create.flags": "|timerfd", "umount2.flags": "|umount", "wait4.options": "|wait", "waitid.options": "|wait", "waitid.which": "waitid",
	"whence": "whence", "setxattr.flags": "|xattr", "lsetxattr.flags": "|xattr", "fsetxattr.flags": "|xattr",
	"recvfrom.flags": "|msg", "recvmsg.flags": "|msg", "recvmmsg.flags": "|msg", "sendto.flags": "|msg", "sendmsg.flags": "|msg", "sendmmsg.flags": "|msg",
	"newfstatat.flag": "|at", "unlinkat.flag": "|unlink", "statx.flags": "|at", "faccessat2.flags": "|access", "fchownat.flag": "|at",
	"linkat.flags": "|at", "utimensat.flags": "|at", "execveat.flags": "|at", "fchmodat2.flags": "|at", "name_to_handle_at.flag": "|at",
}

// Describe writes a value of an argument as a program would: by the names that
// the kernel's headers have for it, or as a number. Only its lower 32 bits
// count.
func Describe(arch Arch, call string, index int, value uint64) string {
	value = uint64(uint32(value))
	p := Parameters(call)
	if index >= len(p) {
		return plain(value)
	}
	group, ok := meanings[call+"."+p[index].Name]
	if !ok {
		group = meanings[p[index].Name]
	}
	if bits, ok := strings.CutPrefix(group, "|"); ok && value != 1<<32-1 {
		return union(arch, bits, value)
	}
	for _, c := range constants[group] {
		if c.value == value && (c.arch == "" || c.arch == string(arch)) {
			return c.name
		}
	}
	return plain(value)
}

// choice is how many low bits of a group are a choice of one constant; all
// others are bits.
var choice = map[string]uint64{"clone": 0xff, "futex": 0x7f, "open": 3, "personality": 0xff, "socktype": 0xf, "map": 0xf, "sched": 0xff}

// union writes a value as constants that are ored.
func union(arch Arch, group string, value uint64) string {
	mask := choice[group]
	var names []string
	left := value
	for _, c := range constants[group] {
		switch {
		case c.arch != "" && c.arch != string(arch):
		case c.value&^mask == 0 && c.value == value&mask && (mask != 0 || value == 0):
			if len(names) == 0 && (c.value != 0 || left != 0 || value == 0) {
				names = append(names, c.name)
				left &^= mask
			}
		case c.value&mask == 0 && c.value != 0 && left&c.value == c.value:
			names = append(names, c.name)
			left &^= c.value
		}
	}
	if left != 0 || len(names) == 0 {
		names = append(names, plain(left))
	}
	return strings.Join(names, "|")
}

// plain writes small values, and those that are small and negative, as people
// read them.
func plain(v uint64) string {
	switch {
	case v < 10:
		return fmt.Sprint(v)
	case v > 0xffff_ff00:
		return fmt.Sprint(int32(v))
	}
	return fmt.Sprintf("%#x", v)
}
