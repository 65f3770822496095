package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
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
		if m.Inode == 0 {
			continue // of no file
		}
		d.mapping(ev.Image, &confinev1.Mapping{
			Time: ev.Time, Pid: int32(ev.Pid), Path: m.Name,
			File: &confinev1.FileId{Inode: m.Inode, Device: unix.Mkdev(m.Major, m.Minor)},
		})
	}
}

// whole reports whether mappings, sorted as the kernel lists them, cover a
// range.
func whole(list []procfs.Mapping, start, end uint64) bool {
	for _, m := range list {
		if m.Start <= start {
			start = max(start, m.End)
		}
	}
	return start >= end
}

// objectAt returns the file that an address of a process is mapped from and
// the offset in it; "" when that can't be told any more.
func objectAt(pid uint32, addr uint64) (path string, offset uint64) {
	found, err := mappings(pid, addr, addr+1)
	if err != nil || len(found) == 0 || found[0].Inode == 0 {
		return "", 0
	}
	return found[0].Name, addr - found[0].Start + found[0].Offset
}

// errNoMappings is that of a process which has none any more: it ends.
var errNoMappings = errors.New("the process has no mappings")

// mappings lists what is mapped in [start, end) of a process, by names of the
// process's own root.
func mappings(pid uint32, start, end uint64) ([]procfs.Mapping, error) {
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
	var out []procfs.Mapping
	for line := range strings.Lines(string(text)) {
		m, ok := procfs.ParseMapping(line)
		if !ok || m.Start >= end || m.End <= start {
			continue
		}
		m.Name = valid([]byte(inRoot(m.Name, root)))
		out = append(out, m)
	}
	return out, nil
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
