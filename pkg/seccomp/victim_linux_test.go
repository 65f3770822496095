package seccomp_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/seccomp"
)

// victimVariable makes this test binary the victim of a filter.
const victimVariable = "CONFINE_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimVariable) != "" {
		victim()
		return
	}
	if os.Getenv(confinedVariable) != "" {
		panic(confined())
	}
	os.Exit(m.Run())
}

// TestKernelAgrees loads a filter into the kernel and makes calls under it.
func TestKernelAgrees(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the profile is one for amd64")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := "getppid: function not implemented\npersonality(8): operation not permitted\npersonality(0xffffffff): allowed\n"
	if got := string(out); !strings.Contains(got, want) {
		t.Errorf("the victim says %q, want %q", got, want)
	}
}

func victim() {
	enosys := seccomp.ENOSYS
	p := &seccomp.Profile{DefaultAction: seccomp.ActAllow, Architectures: []string{seccomp.ArchX8664}, Syscalls: []seccomp.Rule{
		{Names: []string{"getppid"}, Action: seccomp.ActErrno, ErrnoRet: &enosys},
		{Names: []string{"personality"}, Action: seccomp.ActErrno, Args: []seccomp.Condition{{Index: 0, Op: seccomp.Less, Value: 0xffffffff}}},
	}}
	if err := load(p); err != nil {
		panic(err)
	}
	say := func(what string, nr, arg uintptr) {
		_, _, errno := unix.RawSyscall(nr, arg, 0, 0)
		if errno == 0 {
			fmt.Printf("%s: allowed\n", what)
			return
		}
		fmt.Printf("%s: %v\n", what, errno)
	}
	say("getppid", unix.SYS_GETPPID, 0)
	say("personality(8)", unix.SYS_PERSONALITY, 8)
	say("personality(0xffffffff)", unix.SYS_PERSONALITY, 0xffffffff)
}
