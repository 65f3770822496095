package monitor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// maxAncestors bounds how far a process's parents are followed.
const maxAncestors = 128

// unrelated reports whether a process surely belongs to a scope by nothing but
// maybe its cgroup: it is in none of the namespaces, and descends from another
// process than the scope's. Of one that has ended nothing is sure.
func unrelated(pid int32, scope *confinev1.Scope) bool {
	for kind, want := range map[string]uint64{"mnt": scope.GetMountNamespace(), "pid": scope.GetPidNamespace()} {
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st) != nil || st.Ino == want {
			return false
		}
	}
	for range maxAncestors {
		if pid == scope.GetPid() {
			return false
		}
		parent, ok := parentOf(pid)
		if !ok {
			return false
		}
		if parent == 0 {
			return true
		}
		pid = parent
	}
	return false
}

// parentOf reads the parent out of /proc/PID/stat: the second field after the
// name, which is in brackets and may hold anything.
func parentOf(pid int32) (int32, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	text := string(stat)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 2 {
		return 0, false
	}
	parent, err := strconv.ParseInt(f[1], 10, 32)
	return int32(parent), err == nil
}
