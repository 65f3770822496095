package main_test

import (
	"context"
	"testing"
)

func TestDescribe(t *testing.T) {
	d, err := start(t).Describe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if c := d.GetCapabilities(); !c.GetExec() || !c.GetExecMapping() || !c.GetRecordedSyscalls() || !c.GetDeniedSyscalls() {
		t.Errorf("capabilities %v, want all", c)
	}
	t.Log(d)
}

func TestShortProcess(t *testing.T) {
	s := watchTree(t, "/bin/true")
	trueBin := real(t, "/bin/true")
	if n := s.executed()[trueBin]; n != 1 {
		t.Errorf("%s executed %d times, want 1: %v", trueBin, n, s.execs)
	}
	for _, lib := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"} {
		if s.mapped()[real(t, lib)] == 0 {
			t.Errorf("%s isn't among the mappings %v", lib, s.mapped())
		}
	}
	if len(s.exits) != 1 || s.exits[0].GetStatus() != 0 {
		t.Errorf("exits %v, want one with status 0", s.exits)
	}
	t.Log(s.execs, s.mappings, s.snapshot)
}
