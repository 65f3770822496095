package syscalls_test

import (
	"testing"

	"github.com/confinehq/confine/pkg/syscalls"
)

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		arch syscalls.Arch
		call string
		args []uint64
		want string
	}{
		{syscalls.AMD64, "socket", []uint64{17, 0x80003, 0x300, 4, 5, 6}, "socket(AF_PACKET=17, SOCK_RAW|SOCK_CLOEXEC=0x80003, 0x300)"},
		{syscalls.AMD64, "openat", []uint64{1<<64 - 100, 0x7ffd_1000, 0x241, 0o644, 0, 0}, "openat(-100, 0x7ffd1000, O_WRONLY|O_CREAT|O_TRUNC=0x241, 0644)"},
		{syscalls.AMD64, "fcntl", []uint64{0xdead_0000_0003, 3, 1 << 40, 0, 0, 0}, "fcntl(3, F_GETFL=3, 0x10000000000)"},
		{syscalls.AMD64, "mkdir", []uint64{0, 0o755}, "mkdir(NULL, 0755)"},
		{syscalls.ARM64, "openat", []uint64{0, 0, 0x4000}, "openat(0, NULL, O_RDONLY|O_DIRECTORY=0x4000)"},
		{syscalls.AMD64, "getpid", []uint64{1, 2, 3, 4, 5, 6}, "getpid()"},
		{syscalls.AMD64, "syscall_999", []uint64{1, 2, 3, 4, 5, 0x1_0000_0000}, "syscall_999(1, 2, 3, 4, 5, 0x100000000)"},
		{syscalls.AMD64, "ptrace", nil, "ptrace"},
	} {
		if got := syscalls.Format(c.arch, c.call, c.args); got != c.want {
			t.Errorf("%s: %s, want %s", c.call, got, c.want)
		}
	}
}
