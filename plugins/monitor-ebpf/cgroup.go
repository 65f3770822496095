package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// initCgroupNamespace is the inode number of the first cgroup namespace
// (PROC_CGROUP_INIT_INO).
const initCgroupNamespace = 0xEFFFFFFB

// fileIDKernfs is the type of handles that hold a cgroup's id (FILEID_KERNFS).
const fileIDKernfs = 0xfe

// cgroupLevel returns how deep a cgroup lies in its hierarchy, the root being
// at 0; ok is false when that can't be told from here. It spares the kernel's
// side looking for it.
func cgroupLevel(id uint64) (level uint32, ok bool) {
	ns, err := os.Readlink("/proc/self/ns/cgroup")
	if id == 0 || err != nil || ns != fmt.Sprintf("cgroup:[%d]", uint64(initCgroupNamespace)) {
		return 0, false
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(info)) {
		// "36 35 98:0 /root /mount options - type source options"
		f := strings.Fields(line)
		if len(f) < 7 || f[3] != "/" || !strings.Contains(line, " - cgroup2 ") {
			continue
		}
		if path := cgroupPath(f[4], id); path != "" {
			below := strings.Trim(strings.TrimPrefix(path, f[4]), "/")
			if below == "" {
				return 0, true
			}
			return uint32(strings.Count(below, "/") + 1), true
		}
	}
	return 0, false
}

// cgroupPath returns the folder of a cgroup below a mounted hierarchy, "" when
// there is none.
func cgroupPath(mount string, id uint64) string {
	at, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(at)
	handle := unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(at, handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || !strings.HasPrefix(path, mount) {
		return ""
	}
	return path
}
