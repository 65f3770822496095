package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// createFlag is BPF_LOCAL_STORAGE_GET_F_CREATE.
const createFlag = 1

// refuseStates has no state made for what is forked, as when the kernel refuses
// it, which nobody can have it do at will.
func refuseStates(t *testing.T, spec *ebpf.CollectionSpec) {
	t.Helper()
	calls := 0
	code := spec.Programs["on_fork"].Instructions
	for i := range code {
		if !code[i].IsBuiltinCall() || code[i].Constant != int64(asm.FnTaskStorageGet) {
			continue
		}
		calls++
		for j := i - 1; j >= 0 && !code[j].IsBuiltinCall(); j-- {
			if code[j].Dst == asm.R4 && code[j].OpCode.ALUOp() == asm.Mov && code[j].Constant == createFlag {
				code[j].Constant = 0
				break
			}
		}
	}
	if calls == 0 {
		t.Fatal("on_fork makes no state")
	}
}

// A process for which there is neither room for a state nor among the seeds is
// counted as lost; as long as there is room among the seeds nothing is.
func TestNoStateForTask(t *testing.T) {
	needBTF(t)
	const forks = 20
	for name, c := range map[string]struct {
		seeds uint32
		lost  uint64
	}{"no room": {1, forks}, "room among the seeds": {1000, 0}} {
		spec, err := bpf.LoadMonitor()
		if err != nil {
			t.Fatal(err)
		}
		refuseStates(t, spec)
		spec.Maps["seeds"].MaxEntries = c.seeds
		cmd := exec.Command("sh", "-c", "read go; i=0; while [ $i -lt 20 ]; do (exit 0) & i=$((i+1)); done; wait; echo done; read end")
		in, out := pipes(t, cmd)
		pid := uint32(cmd.Process.Pid)
		w, err := loadSpec(spec, &confinev1.Scope{Pid: int32(pid)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		if err := w.putSeed(pid, bpf.MonitorSeed{Origin: pid, Start: startOf(pid)}); err != nil {
			t.Fatal(err)
		}
		if err := w.attach(); err != nil {
			t.Fatal(err)
		}
		_, _ = in.WriteString("go\n")
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		lost, err := perCPU(w.objs.Lost, uint32(lostState))
		if err != nil || lost != c.lost {
			t.Errorf("%s: %d lost (%v), want %d", name, lost, err, c.lost)
		}
	}
}

func needBTF(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the monitor needs root")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); os.IsNotExist(err) {
		t.Skip("the kernel has no BTF")
	}
}

// pipes starts cmd with an input and an output of its own.
func pipes(t *testing.T, cmd *exec.Cmd) (in, out *os.File) {
	t.Helper()
	inEnd, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout = inEnd, outEnd
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = inEnd.Close(), outEnd.Close()
	t.Cleanup(func() { _, _ = in.Close(), out.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return in, out
}
