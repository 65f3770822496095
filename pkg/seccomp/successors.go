package seccomp

// Successor is a call that programs try first, and that they replace by an
// older one when the kernel says ENOSYS; EPERM they take for an answer.
type Successor struct {
	New string
	// Old lists the calls that stand in for it: any one allowed is enough.
	Old []string
	// Source says who falls back, and where that can be read.
	Source string
}

// Successors is the table of them. A profile answers ENOSYS for the new call
// when it allows an old one and the analysis found no site of the new one:
// what then calls it after all (a later libc in the same image, a program
// that "docker exec" starts, a newer runtime) goes on instead of ending.
func Successors() []Successor {
	return []Successor{
		{"accept4", []string{"accept"}, "musl src/network/accept4.c"},
		{"clone3", []string{"clone"}, "glibc 2.34 sysdeps/unix/sysv/linux/clone-internal.c; moby#42680"},
		{"close_range", []string{"close"}, "glibc 2.34 closefrom; CPython _posixsubprocess.c; runc libcontainer/utils"},
		{"copy_file_range", []string{"read", "sendfile", "splice"}, "Go internal/poll/copy_file_range_unix.go; coreutils copy.c"},
		{"dup3", []string{"dup2", "dup"}, "musl src/unistd/dup3.c"},
		{"epoll_create1", []string{"epoll_create"}, "musl src/linux/epoll.c"},
		{"epoll_pwait2", []string{"epoll_pwait", "epoll_wait"}, "systemd src/libsystemd/sd-event"},
		{"eventfd2", []string{"eventfd"}, "musl src/linux/eventfd.c"},
		{"execveat", []string{"execve"}, "glibc sysdeps/unix/sysv/linux/fexecve.c"},
		{"faccessat2", []string{"faccessat", "access"}, "glibc 2.33 and musl 1.2 faccessat; moby#41353"},
		{"fchmodat2", []string{"fchmodat", "chmod", "fchmod"}, "glibc 2.39 and musl 1.2.5 fchmodat"},
		{"fsconfig", []string{"mount"}, "util-linux 2.39 libmount/src/hook_mount.c"},
		{"fsmount", []string{"mount"}, "util-linux 2.39 libmount/src/hook_mount.c"},
		{"fsopen", []string{"mount"}, "util-linux 2.39 libmount/src/hook_mount.c"},
		{"fspick", []string{"mount"}, "util-linux 2.39 libmount/src/hook_mount.c"},
		{"getrandom", []string{"openat", "open"}, "OpenSSL crypto/rand and older Go: /dev/urandom instead"},
		{"inotify_init1", []string{"inotify_init"}, "musl src/linux/inotify.c"},
		{"mount_setattr", []string{"mount"}, "util-linux 2.39 libmount/src/hook_mount.c; runc 1.2 rootfs_linux.go"},
		{"move_mount", []string{"mount"}, "util-linux 2.39 libmount/src/hook_mount.c"},
		{"open_tree", []string{"mount"}, "util-linux 2.39 libmount/src/hook_mount.c"},
		{"openat2", []string{"openat", "open"}, "github.com/cyphar/filepath-securejoin; security-profiles-operator#3041"},
		{"pidfd_open", []string{"kill", "wait4", "waitid"}, "Go os/pidfd_linux.go; CPython subprocess and asyncio"},
		{"pidfd_send_signal", []string{"kill", "tgkill"}, "Go os/pidfd_linux.go; systemd pidref.c"},
		{"pipe2", []string{"pipe"}, "musl src/unistd/pipe2.c"},
		{"preadv2", []string{"preadv", "pread64"}, "glibc sysdeps/unix/sysv/linux/preadv2.c"},
		{"prlimit64", []string{"getrlimit", "setrlimit"}, "musl src/misc/getrlimit.c and setrlimit.c"},
		{"pwritev2", []string{"pwritev", "pwrite64"}, "glibc sysdeps/unix/sysv/linux/pwritev2.c"},
		{"renameat2", []string{"renameat", "rename"}, "coreutils renameatu.c; glibc renameat2.c"},
		{"signalfd4", []string{"signalfd"}, "musl src/linux/signalfd.c"},
		{"statx", []string{"newfstatat", "fstatat64", "stat", "fstat"}, "libuv src/unix/fs.c; Rust std sys/fs/unix.rs; glibc statx.c; runc#2151"},

		// The calls of 32-bit tables that take 64-bit times: glibc 2.34 and
		// musl 1.2 try them first.
		{"clock_gettime64", []string{"clock_gettime"}, "musl src/time/clock_gettime.c"},
		{"clock_nanosleep_time64", []string{"clock_nanosleep"}, "musl src/time/clock_nanosleep.c"},
		{"futex_time64", []string{"futex"}, "musl src/thread/__timedwait.c"},
		{"ppoll_time64", []string{"ppoll", "poll"}, "musl src/select/ppoll.c"},
		{"pselect6_time64", []string{"pselect6", "_newselect"}, "musl src/select/pselect.c"},
		{"utimensat_time64", []string{"utimensat"}, "musl src/stat/utimensat.c"},
	}
}
