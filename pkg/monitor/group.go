package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// groupFolder holds the cgroups of monitors, in the root of a hierarchy, as
// those of container runtimes are: an agent's own cgroup has processes in it,
// so that none below it could have limits.
const groupFolder = "confine-monitors"

// group is the cgroups of one process: one with version 2, one for each
// controller with version 1. It is empty where this process may make none.
type group struct{ dirs []string }

// newGroup moves a process into cgroups with limits, as far as the host has
// and allows them.
func newGroup(pid int, l Limits) *group {
	g := &group{}
	for _, m := range cgroupMounts() {
		parent := filepath.Join(m.path, groupFolder)
		if os.Mkdir(parent, 0o755) == nil || dirExists(parent) {
			sweepGroups(parent)
			g.add(m, parent, pid, l)
		}
	}
	return g
}

func dirExists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// sweepGroups removes what killed hosts left. Groups with processes in them
// can't be removed, and one without may be another host's that is about to move
// its monitor there.
func sweepGroups(parent string) {
	left, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, d := range left {
		if d.IsDir() && !dirExists(filepath.Join("/proc", d.Name())) {
			_ = unix.Rmdir(filepath.Join(parent, d.Name()))
		}
	}
}

func (g *group) add(m cgroupMount, parent string, pid int, l Limits) {
	dir := filepath.Join(parent, strconv.Itoa(pid))
	files := m.files(l)
	if m.v2 {
		for _, c := range []string{"+memory", "+pids", "+cpu"} {
			writeFile(filepath.Join(m.path, "cgroup.subtree_control"), c)
			writeFile(filepath.Join(parent, "cgroup.subtree_control"), c)
		}
	}
	// The parent goes with the last monitor of another host.
	if os.MkdirAll(dir, 0o755) != nil {
		return
	}
	m.weigh(parent, l)
	limited := false
	for name, value := range files {
		limited = writeFile(filepath.Join(dir, name), value) || limited
	}
	if !limited || !writeFile(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)) {
		_ = unix.Rmdir(dir)
		return
	}
	g.dirs = append(g.dirs, dir)
}

func writeFile(path, value string) bool {
	return os.WriteFile(path, []byte(value), 0) == nil
}

// remove deletes the groups, which are empty when all processes have ended; if
// not yet, the next start does it. Their parent goes with the last one.
func (g *group) remove() {
	if g == nil {
		return
	}
	for _, d := range g.dirs {
		_ = unix.Rmdir(d)
		_ = unix.Rmdir(filepath.Dir(d))
	}
}

// cgroupMount is where a hierarchy is mounted.
type cgroupMount struct {
	path        string
	v2          bool
	controllers map[string]bool // of version 1
}

// cgroupMounts lists the hierarchies that can limit something.
func cgroupMounts() []cgroupMount {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var out []cgroupMount
	for line := range strings.Lines(string(mounts)) {
		// "source target type options ..."
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		m := cgroupMount{path: f[1], v2: f[2] == "cgroup2", controllers: map[string]bool{}}
		for option := range strings.SplitSeq(f[3], ",") {
			m.controllers[option] = true
		}
		if m.v2 && dirExists(m.path) {
			// A hierarchy beside version 1 may have no controllers left.
			available, _ := os.ReadFile(filepath.Join(m.path, "cgroup.controllers"))
			if len(strings.TrimSpace(string(available))) > 0 {
				out = append(out, m)
			}
		}
		if f[2] == "cgroup" && (m.controllers["memory"] || m.controllers["pids"] || m.controllers["cpu"]) {
			out = append(out, m)
		}
	}
	return out
}

// weigh gives the folder of all monitors the share of the processors that one
// of them is to have: those inside only divide it.
func (m cgroupMount) weigh(parent string, l Limits) {
	for name, value := range m.files(l) {
		if name != "cpu.weight" && name != "cpu.shares" {
			continue
		}
		file := filepath.Join(parent, name)
		now, _ := os.ReadFile(file)
		has, _ := strconv.ParseUint(strings.TrimSpace(string(now)), 10, 64)
		if want, _ := strconv.ParseUint(value, 10, 64); want > has {
			writeFile(file, value)
		}
	}
}

// files are the settings of a group: name of a file to its content.
func (m cgroupMount) files(l Limits) map[string]string {
	memory, processes := fmt.Sprint(l.Memory), fmt.Sprint(l.Processes)
	if m.v2 {
		return map[string]string{"memory.max": memory, "pids.max": processes, "cpu.weight": fmt.Sprint(l.CPUWeight)}
	}
	out := map[string]string{}
	if m.controllers["memory"] {
		out["memory.limit_in_bytes"] = memory
	}
	if m.controllers["pids"] {
		out["pids.max"] = processes
	}
	if m.controllers["cpu"] {
		out["cpu.shares"] = fmt.Sprint(max(2, l.CPUWeight*1024/100))
	}
	return out
}
