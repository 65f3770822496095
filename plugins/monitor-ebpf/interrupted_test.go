package main

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// printing is a program that does nothing but reach the tracepoint of what
// programs print.
func printing() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R0, 'x'), // and the NUL behind it
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 2),
		asm.FnTracePrintk.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}
}

// A program in the kernel that is interrupted by itself doesn't run the second
// time, which is counted once. None of the monitor's own comes to where it is
// attached, so that another one stands in for on_move here.
func TestInterruptedProgram(t *testing.T) {
	needBTF(t)
	spec, err := bpf.LoadMonitor()
	if err != nil {
		t.Fatal(err)
	}
	move := spec.Programs["on_move"]
	move.AttachTo, move.Instructions = "bpf_trace_printk", printing()
	w, err := loadSpec(spec, &confinev1.Scope{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if err := w.attach(); err != nil {
		t.Fatal(err)
	}
	if n := w.interruptions(); n != 0 {
		t.Fatalf("%d interruptions before there was one", n)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: printing()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		if _, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 14)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.interruptions(); n != 3 {
		t.Errorf("%d interruptions counted, want 3", n)
	}
	if n := w.interruptions(); n != 0 {
		t.Errorf("%d of them counted again", n)
	}
}
