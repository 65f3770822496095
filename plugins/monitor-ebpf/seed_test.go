package main

import (
	"io"
	"os/exec"
	"testing"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// A process that has the number of one that was in the scope, and began at
// another time, isn't in the scope.
func TestReusedNumber(t *testing.T) {
	needBTF(t)
	cmd := exec.Command("yes")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	w, err := load(&confinev1.Scope{Pid: int32(cmd.Process.Pid)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if err := w.attach(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	start := startOf(pid)
	if start == 0 || shiftedTime() {
		t.Fatalf("process %d began at %d, times are shifted: %v", pid, start, shiftedTime())
	}
	// seen makes it call write often, and reports whether that was recorded.
	seen := func(s bpf.MonitorSeed) bool {
		if err := w.putSeed(pid, s); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, out, 1<<20); err != nil {
			t.Fatal(err)
		}
		calls, err := w.recorded()
		if err != nil {
			t.Fatal(err)
		}
		return len(calls) > 0
	}
	if seen(bpf.MonitorSeed{Origin: pid, Start: start - 1}) {
		t.Error("one that began at another time is watched")
	}
	if !seen(bpf.MonitorSeed{Origin: pid, Start: start}) {
		t.Error("the process itself isn't watched")
	}
}
