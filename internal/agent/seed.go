package agent

import (
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/confinehq/confine/internal/agent/observe"
	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// seed tells a collector what the processes of a container run and have mapped
// already, and returns how many there are. The watch has begun, so what they
// start meanwhile is seen by the monitor.
func seed(c *observe.Collector, pid int) (processes int) {
	for _, p := range containerProcesses(pid) {
		dir := "/proc/" + strconv.Itoa(p)
		exe, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue // it has ended
		}
		processes++
		c.Running(int32(p), exe)
		maps, err := os.Open(dir + "/maps")
		if err != nil {
			continue
		}
		for _, name := range executableMappings(maps) {
			c.Mapped(int32(p), name)
		}
		_ = maps.Close()
	}
	return processes
}

// containerProcesses lists the processes of the container whose first process
// is pid: its descendants, and those that share its mount namespace, such as
// what was executed in the container from outside.
func containerProcesses(pid int) []int {
	mount := procfs.Namespace(int32(pid), "mnt")
	if mount == procfs.Namespace(1, "mnt") || mount == procfs.Namespace(int32(os.Getpid()), "mnt") {
		mount = 0
	}
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	parents := map[int]int{} // process to parent
	var members []int
	in := map[int]bool{pid: true}
	for _, e := range entries {
		p, err := strconv.Atoi(filepath.Base(e))
		if err != nil {
			continue
		}
		parent, _ := procfs.Parent(int32(p)) // 0 when it has ended
		parents[p] = int(parent)
		if mount != 0 && procfs.Namespace(int32(p), "mnt") == mount {
			in[p] = true
		}
	}
	for p := range parents {
		for q, hops := p, 0; q > 1 && hops < len(parents); q, hops = parents[q], hops+1 {
			if in[q] {
				members = append(members, p)
				break
			}
		}
	}
	return members
}

// executableMappings reads the format of /proc/PID/maps and returns the names
// of what is mapped with the right to execute, each once.
func executableMappings(r io.Reader) []string {
	var names []string
	seen := map[string]bool{}
	for m := range procfs.Mappings(r) {
		if m.Executable && m.Inode != 0 && !seen[m.Name] {
			seen[m.Name] = true
			names = append(names, m.Name)
		}
	}
	return names
}
