package syscalls_test

import (
	"testing"

	"github.com/confinehq/confine/pkg/syscalls"
)

func TestSimilar(t *testing.T) {
	for name, want := range map[string]string{
		"ptarce": "ptrace", "clon": "clone", "SYS_socket": "socket", "__NR_bpf": "bpf", "openat3": "openat2", "epoll": "epoll_create",
		"xyzzyplugh": "", "": "", "q": "",
	} {
		if got := syscalls.Similar(syscalls.AMD64, name); got != want {
			t.Errorf("Similar(%q) = %q, want %q", name, got, want)
		}
	}
}
