package agent

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// cgroupMounts are where a cgroup v2 hierarchy is mounted: alone, or beside
// version 1.
func cgroupMounts() []string { return []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} }

// scopeOf selects the processes of a container by everything that tells them
// from others. What the container shares with the node is left out.
func scopeOf(pid int, containerID string) *confinev1.Scope {
	s := &confinev1.Scope{Pid: int32(pid), ContainerId: containerID}
	s.CgroupId = cgroupID(pid)
	if ns := procfs.Namespace(int32(pid), "mnt"); ns != procfs.Namespace(int32(os.Getpid()), "mnt") && ns != procfs.Namespace(1, "mnt") {
		s.MountNamespace = ns
	}
	if ns := procfs.Namespace(int32(pid), "pid"); ns != procfs.Namespace(int32(os.Getpid()), "pid") && ns != procfs.Namespace(1, "pid") {
		s.PidNamespace = ns
	}
	return s
}

// attachScope selects the processes of a container that may share its PID
// namespace with others, as those of a pod can.
func attachScope(pid int, containerID string) *confinev1.Scope {
	s := scopeOf(pid, containerID)
	if s.CgroupId != 0 || s.MountNamespace != 0 {
		s.PidNamespace = 0
	}
	return s
}

// cgroupID returns the inode of the process's cgroup v2 folder, 0 when it has
// none of its own: with cgroup v1 a container can be in the one of its shim, or
// in the root.
func cgroupID(pid int) uint64 {
	path := cgroupOf(pid)
	parent, _ := procfs.Parent(int32(pid))
	if path == "" || path == "/" || strings.Contains(path, "..") || path == cgroupOf(int(parent)) {
		return 0
	}
	for _, mount := range cgroupMounts() {
		var st unix.Stat_t
		var fs unix.Statfs_t
		dir := filepath.Join(mount, path)
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && unix.Stat(dir, &st) == nil {
			return st.Ino
		}
	}
	return 0
}

// cgroupOf returns the path of a process in the cgroup v2 hierarchy, "" when it
// is in none.
func cgroupOf(pid int) string {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if path, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			return path
		}
	}
	return ""
}
