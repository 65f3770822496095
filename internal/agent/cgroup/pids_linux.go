package cgroup

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Refused returns how often the processes of a group could not make another
// one because of its limit, 0 when that can't be told. The path is that of
// linux.cgroupsPath in an OCI specification; the group has to be there still.
func Refused(path string) uint64 {
	if path == "" || strings.Contains(path, ":") {
		return 0
	}
	mounts, err := hierarchies()
	if err != nil {
		return 0
	}
	for _, m := range mounts {
		if n, ok := pidsEvents(filepath.Join(m, filepath.Clean("/"+path), "pids.events")); ok {
			return n
		}
	}
	return 0
}

// pidsEvents reads the count of the line "max COUNT".
func pidsEvents(file string) (uint64, bool) {
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if count, ok := strings.CutPrefix(s.Text(), "max "); ok {
			n, err := strconv.ParseUint(count, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
