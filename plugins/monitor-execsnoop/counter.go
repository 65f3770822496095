package main

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// counter has the kernel count the executions in a cgroup, which tells how many
// the tool didn't report. It knows nothing else of them.
type counter struct {
	groups, count *ebpf.Map
	program       *ebpf.Program
	link          link.Link
}

// newCounter begins to count in the cgroup of a folder; "" counts nothing.
func newCounter(cgroup string) (_ *counter, err error) {
	c := &counter{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.groups, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.CGroupArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("make the map of cgroups: %w", err)
	}
	if c.count, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("make the map of the count: %w", err)
	}
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		if err := c.groups.Put(uint32(0), uint32(dir.Fd())); err != nil {
			return nil, fmt.Errorf("count in %s: %w", cgroup, err)
		}
	}
	if c.program, err = ebpf.NewProgram(countExecutions(c.groups, c.count)); err != nil {
		return nil, fmt.Errorf("load the program that counts: %w", err)
	}
	if c.link, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exec", Program: c.program}); err != nil {
		return nil, fmt.Errorf("attach the program that counts: %w", err)
	}
	return c, nil
}

// countExecutions adds one to count for each execution by a task of the cgroup,
// as the tool itself tells which those are.
func countExecutions(groups, count *ebpf.Map) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Name: "count_execs", Type: ebpf.RawTracepoint, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, groups.FD()),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnCurrentTaskUnderCgroup.Call(),
			asm.JNE.Imm(asm.R0, 1, "end"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, count.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "end"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
			asm.Return(),
		},
	}
}

// read returns the executions so far.
func (c *counter) read() (n uint64, err error) {
	if err := c.count.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("read the count of executions: %w", err)
	}
	return n, nil
}

func (c *counter) close() {
	if c.link != nil {
		_ = c.link.Close()
	}
	_ = c.program.Close() // nil ones do nothing
	_, _ = c.groups.Close(), c.count.Close()
}

// countable reports whether executions can be counted on this host.
func countable() bool {
	c, err := newCounter("")
	if err != nil {
		return false
	}
	c.close()
	return true
}
