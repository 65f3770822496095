package main

import (
	"errors"
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
// What has gone meanwhile is lost.
func (d *decoder) unmapped(ev *bpf.MonitorEvent) {
	found, err := mappings(ev.Pid, ev.Addr, ev.Addr+ev.Offset)
	if err != nil {
		d.sink.Lost(1, "a process ended before its mapping could be read")
		return
	}
	if !whole(found, ev.Addr, ev.Addr+ev.Offset) {
		d.sink.Lost(1, "a mapping was gone before it could be read")
	}
	for _, m := range found {
		if m.inode == 0 {
			continue // of no file
		}
		d.mapping(ev.Image, &confinev1.Mapping{
			Time: ev.Time, Pid: int32(ev.Pid), Path: m.path,
			File: &confinev1.FileId{Inode: m.inode, Device: m.device},
		})
	}
}

// whole reports whether mappings, sorted as the kernel lists them, cover a
// range.
func whole(list []mapping, start, end uint64) bool {
	for _, m := range list {
		if m.start <= start {
			start = max(start, m.end)
		}
	}
	return start >= end
}

// objectAt returns the file that an address of a process is mapped from and
// the offset in it; "" when that can't be told any more.
func objectAt(pid uint32, addr uint64) (path string, offset uint64) {
	found, err := mappings(pid, addr, addr+1)
	if err != nil || len(found) == 0 || found[0].inode == 0 {
		return "", 0
	}
	return found[0].path, addr - found[0].start + found[0].offset
}

// mapping is what is mapped somewhere.
type mapping struct {
	start, end    uint64
	offset        uint64 // of start, in the file
	inode, device uint64 // 0 without a file
	path          string // in the process's own root
}

// errNoMappings is that of a process which has none any more: it ends.
var errNoMappings = errors.New("the process has no mappings")

// mappings lists what is mapped in [start, end) of a process.
func mappings(pid uint32, start, end uint64) ([]mapping, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	// A process that ends between opening and reading shows an empty list.
	if len(text) == 0 {
		return nil, errNoMappings
	}
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return nil, err
	}
	var out []mapping
	for line := range strings.Lines(string(text)) {
		m, ok := parseMapping(line)
		if !ok || m.start >= end || m.end <= start {
			continue
		}
		m.path = inRoot(m.path, root)
		out = append(out, m)
	}
	return out, nil
}

// parseMapping reads a line of /proc/PID/maps; it reports false for what is
// none.
func parseMapping(line string) (mapping, bool) {
	// start-end perms offset major:minor inode path, the path after blanks
	f := strings.SplitN(line, " ", 6)
	if len(f) < 5 {
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
	}{
		{from, 16, &m.start}, {to, 16, &m.end}, {f[2], 16, &m.offset},
		{major, 16, &maj}, {minor, 16, &min}, {strings.TrimSpace(f[4]), 10, &m.inode},
	} {
		v, err := strconv.ParseUint(n.text, n.base, 64)
		if err != nil {
			return mapping{}, false
		}
		*n.to = v
	}
	m.device = unix.Mkdev(uint32(maj), uint32(min))
	if len(f) == 6 {
		m.path = strings.TrimLeft(strings.TrimSuffix(f[5], "\n"), " ")
		m.path = strings.ReplaceAll(m.path, `\012`, "\n")
	}
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
