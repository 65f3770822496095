package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/confinehq/confine/pkg/monitor/procfs"
	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
)

// seed puts a process and its descendants in the scope. The programs are
// attached by then: a process that forks after it was put in passes it on
// itself, and those that were forked before are found here.
func (w *watch) seed(pid int32) error {
	if pid == 0 {
		return nil
	}
	in := map[uint32]bool{}
	shifted := shiftedTime()
	more := []uint32{uint32(pid)}
	for len(more) > 0 {
		for _, p := range more {
			if err := w.addSeed(p, bpf.MonitorSeed{Origin: uint32(pid)}, shifted); err != nil {
				return fmt.Errorf("add process %d to the scope: %w", p, err)
			}
			in[p] = true
		}
		// Only now: what a process forked before it was put in shows up here.
		parents, err := parentsOfAll()
		if err != nil {
			return fmt.Errorf("find the descendants of process %d: %w", pid, err)
		}
		more = childrenOf(in, parents)
	}
	return nil
}

// addSeed puts one process in the scope, unless it has ended: its number may
// be another's soon. Where times are shifted nothing tells the two apart.
func (w *watch) addSeed(pid uint32, s bpf.MonitorSeed, shifted bool) error {
	if !shifted {
		if s.Start = startOf(pid); s.Start == 0 {
			return nil
		}
	}
	return w.putSeed(pid, s)
}

func (w *watch) putSeed(pid uint32, s bpf.MonitorSeed) error {
	w.seedBits[pid%65536/64] |= 1 << (pid % 64)
	if err := w.objs.SeedBits.Set(w.seedBits); err != nil {
		return err
	}
	if err := w.objs.Seeds.Update(pid, s, ebpf.UpdateAny); err != nil {
		return err
	}
	// It may have been found outside before. The others of the word are looked
	// at once more.
	w.seedings++
	if err := w.objs.Seedings.Set(w.seedings); err != nil {
		return err
	}
	return w.objs.Outside.Update(pid/64, uint64(0), ebpf.UpdateAny)
}

// startOf returns when a process began, in ticks since boot as its time
// namespace counts them; 0 when it is gone.
func startOf(pid uint32) uint64 {
	fields := procfs.Stat(int32(pid))
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

// shiftedTime reports whether this process counts the time since boot in
// another way than the kernel, by its time namespace.
func shiftedTime() bool {
	text, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return false // the kernel has no such namespaces
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "boottime" {
			return f[1] != "0" || f[2] != "0"
		}
	}
	return true
}

// childrenOf lists the processes that aren't in the set but whose parent is.
func childrenOf(in map[uint32]bool, parents map[uint32]uint32) []uint32 {
	var out []uint32
	for p, parent := range parents {
		if in[parent] && !in[p] {
			out = append(out, p)
		}
	}
	return out
}

// parentsOfAll returns the parent of each process of the host.
func parentsOfAll() (map[uint32]uint32, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents := make(map[uint32]uint32)
	for _, e := range entries {
		pid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		if parent, ok := procfs.ParentIn(procfs.StatFields(stat)); ok {
			parents[uint32(pid)] = uint32(parent)
		}
	}
	return parents, nil
}
