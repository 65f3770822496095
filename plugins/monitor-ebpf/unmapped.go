package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// unmapped finds the files of an executable mapping that the kernel's side
// couldn't look at because another thread was changing the process's mappings.
// It is lost when the process has ended meanwhile.
func (d *decoder) unmapped(ev *bpf.MonitorEvent) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", ev.Pid))
	if err != nil {
		d.sink.Lost(1, "a process ended before its mapping could be read")
		return
	}
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", ev.Pid))
	if err != nil {
		d.sink.Lost(1, "a process ended before its mapping could be read")
		return
	}
	for line := range strings.Lines(string(maps)) {
		m, ok := parseMapping(line)
		if !ok || m.start >= ev.Addr+ev.Offset || m.end <= ev.Addr {
			continue
		}
		d.sink.Mapping(&confinev1.Mapping{
			Time: ev.Time, Pid: int32(ev.Pid), Path: inRoot(m.path, root),
			File: &confinev1.FileId{Inode: m.inode, Device: m.device},
		})
	}
}

// mapping is an executable file mapping, a line of /proc/PID/maps.
type mapping struct {
	start, end    uint64
	inode, device uint64
	path          string
}

// parseMapping reports false for what isn't an executable mapping of a file.
func parseMapping(line string) (mapping, bool) {
	f := strings.Fields(line)
	if len(f) < 6 || !strings.Contains(f[1], "x") || f[4] == "0" {
		return mapping{}, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	major, minor, _ := strings.Cut(f[3], ":")
	var m mapping
	var maj, min uint64
	for _, n := range []struct {
		text string
		base int
		to   *uint64
	}{{from, 16, &m.start}, {to, 16, &m.end}, {major, 16, &maj}, {minor, 16, &min}, {f[4], 10, &m.inode}} {
		v, err := strconv.ParseUint(n.text, n.base, 64)
		if err != nil {
			return mapping{}, false
		}
		*n.to = v
	}
	m.device = unix.Mkdev(uint32(maj), uint32(min))
	_, rest, _ := strings.Cut(line, f[4]+" ")
	m.path = strings.ReplaceAll(strings.TrimSpace(rest), `\012`, "\n")
	return m, true
}

// inRoot turns a path as this process sees it into one of the other's root.
func inRoot(path, root string) string {
	if strings.HasPrefix(path, "/"+memoryFile) {
		return strings.TrimSuffix(path[1:], " (deleted)")
	}
	if root == "/" {
		return path
	}
	if rest, ok := strings.CutPrefix(path, root); ok && strings.HasPrefix(rest, "/") {
		return rest
	}
	return path
}
