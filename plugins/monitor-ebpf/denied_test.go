package main_test

import (
	"debug/elf"
	"slices"
	"syscall"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// auditArchX86_64 is AUDIT_ARCH_X86_64 of linux/audit.h.
const auditArchX86_64 = 0xc000003e

// siteOf returns the offset in its file of a symbol of a program.
func siteOf(t *testing.T, program, symbol string) uint64 {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name != symbol {
			continue
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && p.Vaddr <= s.Value && s.Value < p.Vaddr+p.Memsz {
				return s.Value - p.Vaddr + p.Off
			}
		}
	}
	t.Fatalf("no symbol %s in %s", symbol, program)
	return 0
}

// refusedArgs are the arguments of refuse.c's call.
var refusedArgs = []uint64{0x1100000011, 0x22, 0x33, 0x44, 0x55, 1<<64 - 0x66}

func TestDeniedCalls(t *testing.T) {
	refuse := compile(t, "refuse.c")
	site := siteOf(t, refuse, "after_call")
	for _, c := range []struct {
		how    string
		times  string
		count  uint64
		ret    int64
		signal syscall.Signal
		caller bool // the place of the call is known
	}{
		{"errno", "5", 5, -int64(syscall.EPERM), 0, true},
		{"enosys", "1", 1, -int64(syscall.ENOSYS), 0, true},
		{"trap", "1", 1, syscall.SYS_SETHOSTNAME, syscall.SIGSYS, true},
		{"kill", "1", 1, 0, syscall.SIGSYS, false},
		{"thread", "1", 1, 0, syscall.SIGSYS, false},
	} {
		t.Run(c.how, func(t *testing.T) {
			s := watchTree(t, refuse, c.how, c.times)
			if len(s.denied) != 1 || len(s.snapshot.GetDenied()) != 1 {
				t.Fatalf("denied calls %v, in the snapshot %v, want one", s.denied, s.snapshot.GetDenied())
			}
			for _, d := range []*confinev1.DeniedCall{s.denied[0], s.snapshot.GetDenied()[0]} {
				if d.GetNr() != syscall.SYS_SETHOSTNAME || d.GetProcess() != refuse || d.GetComm() != "refuse" ||
					d.GetArch() != auditArchX86_64 || d.GetSignal() != int32(c.signal) || !slices.Equal(d.GetArgs(), refusedArgs) {
					t.Errorf("denied call %v", d)
				}
				if c.caller && (d.GetRet() != c.ret || d.GetObject() != refuse || d.GetOffset() != site) {
					t.Errorf("denied call %v, want result %d, object %s, offset %#x", d, c.ret, refuse, site)
				}
			}
			if n := s.snapshot.GetDenied()[0].GetCount(); n != c.count {
				t.Errorf("count %d, want %d", n, c.count)
			}
			// A refused call wasn't made.
			for _, nr := range s.calls(refuse).GetNrs() {
				if nr == syscall.SYS_SETHOSTNAME {
					t.Error("the refused call is among the recorded ones")
				}
			}
			if e := s.exits[len(s.exits)-1]; c.how == "kill" && syscall.WaitStatus(e.GetStatus()).Signal() != syscall.SIGSYS {
				t.Errorf("exit %v, want a death by SIGSYS", e)
			}
		})
	}
}

// An error that the call itself returns isn't a refusal.
func TestFailedCall(t *testing.T) {
	if s := watchTree(t, "/bin/sh", "-c", "kill -0 999999999; cat /nonexistent"); len(s.denied) != 0 {
		t.Errorf("denied calls %v, want none", s.denied)
	}
}
