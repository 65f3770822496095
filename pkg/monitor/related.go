package monitor

import (
	"github.com/confinehq/confine/pkg/monitor/procfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// maxAncestors bounds how far a process's parents are followed.
const maxAncestors = 128

// unrelated reports whether a process surely belongs to a scope by nothing but
// maybe its cgroup: it is in none of the namespaces, and descends from another
// process than the scope's. Of one that has ended nothing is sure.
func unrelated(pid int32, scope *confinev1.Scope) bool {
	for kind, want := range map[string]uint64{"mnt": scope.GetMountNamespace(), "pid": scope.GetPidNamespace()} {
		if is := procfs.Namespace(pid, kind); is == 0 || is == want {
			return false
		}
	}
	for range maxAncestors {
		if pid == scope.GetPid() {
			return false
		}
		parent, ok := procfs.Parent(pid)
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
