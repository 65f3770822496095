package main_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// straceLine is a call as strace -n prints it, its number in brackets.
var straceLine = regexp.MustCompile(`^\d+ +\[ *(\d+)\] (\w+)\(`)

// traced returns the numbers of the calls that strace sees a command make.
func traced(t *testing.T, argv ...string) []int32 {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace isn't installed: there is nothing to compare with")
	}
	out := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", append([]string{"-f", "-n", "-qq", "-e", "signal=none", "-o", out}, argv...)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace: %v\n%s", err, msg)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var nrs []int32
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m := straceLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		n, err := strconv.ParseInt(m[1], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		// The execve that starts the program is another program's call.
		if nr := int32(n); nr != syscall.SYS_EXECVE && !slices.Contains(nrs, nr) {
			nrs = append(nrs, nr)
		}
	}
	slices.Sort(nrs)
	return nrs
}

func TestRecordedCallsAreThoseOfStrace(t *testing.T) {
	for _, argv := range [][]string{
		{"/bin/true"},
		{"/bin/ls", "-l", "/etc"},
		{"/bin/cat", "/etc/passwd"},
		{compile(t, "load.c"), "dlopen", compileLibrary(t)},
		{compile(t, "churn.c"), "3", real(t, "/bin/true"), real(t, "/bin/ls")},
	} {
		t.Run(filepath.Base(argv[0]), func(t *testing.T) {
			want := traced(t, argv...)
			got := watchTree(t, argv...).calls(real(t, argv[0])).GetNrs()
			// Two threads wait for each other or don't.
			drop := func(nrs []int32) []int32 {
				return slices.DeleteFunc(slices.Clone(nrs), func(nr int32) bool { return nr == syscall.SYS_FUTEX })
			}
			if !slices.Equal(drop(got), drop(want)) || len(want) == 0 {
				t.Errorf("recorded %v\nstrace   %v", got, want)
			}
		})
	}
}

// Each program's calls are its own.
func TestCallsByImage(t *testing.T) {
	nop := compile(t, "nop.c", "-static")
	s := watchTree(t, "/bin/sh", "-c", "/bin/ls / >/dev/null; "+nop+"; true")
	sh, ls, np := s.calls(real(t, "/bin/sh")), s.calls(real(t, "/bin/ls")), s.calls(nop)
	if sh == nil || ls == nil || np == nil || len(s.snapshot.GetRecorded()) != 3 {
		t.Fatalf("recorded %v, want those of sh, ls and nop", s.snapshot.GetRecorded())
	}
	if !slices.Contains(sh.GetNrs(), syscall.SYS_EXECVE) || slices.Contains(ls.GetNrs(), syscall.SYS_EXECVE) {
		t.Error("execve belongs to the one who calls it")
	}
	if !slices.Contains(ls.GetNrs(), syscall.SYS_GETDENTS64) || slices.Contains(np.GetNrs(), syscall.SYS_GETDENTS64) {
		t.Error("getdents64 belongs to ls alone")
	}
	if len(sh.GetCompatNrs())+len(ls.GetCompatNrs())+len(np.GetCompatNrs()) != 0 {
		t.Errorf("calls of another architecture: %v", s.snapshot.GetRecorded())
	}
}

// A 64-bit program can make 32-bit calls; they are counted apart. Where the
// processor has none, the kernel never sees the program's and none is counted.
func TestCompatCalls(t *testing.T) {
	program := compile(t, "compat.c", "-static")
	impossible := exec.Command(program).Run()
	want := []int32{20} // getpid, of the i386 table
	if impossible != nil {
		want = nil
	}
	s := watchTree(t, program)
	got := s.calls(program)
	if got == nil || len(got.GetNrs()) == 0 {
		t.Fatalf("recorded %v, want the 64-bit calls of %s", s.snapshot.GetRecorded(), program)
	}
	if !slices.Equal(got.GetCompatNrs(), want) {
		t.Errorf("compat calls %v, want %v; output %v", got.GetCompatNrs(), want, s.exits)
	}
	if impossible != nil {
		t.Skipf("impossible on this machine: a 32-bit call: %v", impossible)
	}
}
