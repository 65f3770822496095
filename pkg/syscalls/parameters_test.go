package syscalls_test

import (
	"slices"
	"testing"

	"github.com/confinehq/confine/pkg/syscalls"
)

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		call  string
		index int
		value uint64
		want  string
	}{
		{"socket", 0, 1, "AF_UNIX"},
		{"socket", 1, 0x80002, "SOCK_DGRAM|SOCK_CLOEXEC"},
		{"socket", 2, 17, "0x11"},
		{"fcntl", 1, 3, "F_GETFL"},
		{"fcntl", 1, 0xdead_0000_0406, "F_DUPFD_CLOEXEC"},
		{"fcntl", 1, 9999, "0x270f"},
		{"openat", 2, 0, "O_RDONLY"},
		{"openat", 2, 0x80241, "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC"},
		{"clone", 0, 0x1200011, "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|0x11"},
		{"mmap", 2, 0, "PROT_NONE"},
		{"mmap", 2, 3, "PROT_READ|PROT_WRITE"},
		{"mmap", 3, 0x20022, "MAP_PRIVATE|MAP_ANONYMOUS|MAP_STACK"},
		{"futex", 1, 0x189, "FUTEX_WAIT_BITSET|FUTEX_PRIVATE_FLAG|FUTEX_CLOCK_REALTIME"},
		{"ioctl", 1, 0x5401, "TCGETS"},
		{"madvise", 2, 4, "MADV_DONTNEED"},
		{"setsockopt", 1, 1, "SOL_SOCKET"},
		{"setsockopt", 1, 6, "IPPROTO_TCP"},
		{"personality", 0, 0xffffffff, "-1"},
		{"prctl", 0, 15, "PR_SET_NAME"},
		{"unlinkat", 2, 0x200, "AT_REMOVEDIR"},
		{"read", 5, 7, "7"},
		{"no_such_call", 0, 0xfffffffe, "-2"},
	} {
		if got := syscalls.Describe(syscalls.AMD64, c.call, c.index, c.value); got != c.want {
			t.Errorf("%s, argument %d, %#x: %s, want %s", c.call, c.index, c.value, got, c.want)
		}
	}
	// O_DIRECTORY differs between the two architectures.
	if a, b := syscalls.Describe(syscalls.AMD64, "openat", 2, 0x10000), syscalls.Describe(syscalls.ARM64, "openat", 2, 0x4000); a != b || a != "O_RDONLY|O_DIRECTORY" {
		t.Errorf("O_DIRECTORY is %s and %s", a, b)
	}
}

func TestParameters(t *testing.T) {
	for _, c := range syscalls.All(syscalls.AMD64) {
		p := syscalls.Parameters(c.Name)
		for _, i := range syscalls.Chooses(c.Name) {
			if i >= len(p) || i > 5 || p[i].Type[len(p[i].Type)-1] == '*' {
				t.Errorf("%s: argument %d of %v can't be narrowed", c.Name, i, p)
			}
		}
	}
	for name, want := range map[string][]int{
		"socket": {0, 1, 2}, "fcntl": {1}, "ioctl": {1}, "mmap": {2, 3}, "openat": {2}, "umount2": {1},
		"read": nil, "mount": {3}, "kill": nil, "clock_gettime": nil, "getrandom": nil,
	} {
		if got := syscalls.Chooses(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
