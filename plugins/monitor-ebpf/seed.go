package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/cilium/ebpf"

	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// seed puts a process and its descendants in the scope. The programs are
// attached by then: a process that forks after it was put in passes it on
// itself, and those that were forked before are found here.
func (w *watch) seed(pid int32) error {
	if pid == 0 {
		return nil
	}
	in := map[uint32]bool{}
	var bits [1024]uint64 // SEED_BITS of scope.h
	more := []uint32{uint32(pid)}
	for len(more) > 0 {
		for _, p := range more {
			bits[p%65536/64] |= 1 << (p % 64)
			if err := w.objs.SeedBits.Set(bits); err != nil {
				return fmt.Errorf("add process %d to the scope: %w", p, err)
			}
			if err := w.objs.Seeds.Update(p, uint32(pid), ebpf.UpdateAny); err != nil {
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
