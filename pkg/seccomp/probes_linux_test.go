package seccomp_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/seccomp"
	"github.com/confinehq/confine/pkg/syscalls"
)

// confinedVariable makes this test binary execute a program under the profile
// in the file that it names.
const confinedVariable = "CONFINE_TEST_PROFILE"

// load puts a profile on the calling process.
func load(p *seccomp.Profile) error {
	program, err := seccomp.Compile(p)
	if err != nil {
		return err
	}
	raw, err := program.Raw()
	if err != nil {
		return err
	}
	var code []unix.SockFilter
	for _, r := range raw {
		code = append(code, unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K})
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}

func confined() error {
	data, err := os.ReadFile(os.Getenv(confinedVariable))
	if err != nil {
		return err
	}
	p, err := seccomp.Read(data)
	if err != nil {
		return err
	}
	if err := load(p); err != nil {
		return err
	}
	return unix.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// olderOnly allows every call but those that have older siblings, and rseq,
// which C libraries use when they can.
func olderOnly() []seccomp.Call {
	var newer []string
	for _, s := range seccomp.Successors() {
		newer = append(newer, s.New)
	}
	var out []seccomp.Call
	for _, c := range syscalls.All(syscalls.AMD64) {
		if c.Name != "rseq" && (!slices.Contains(newer, c.Name) || needed[c.Name]) {
			out = append(out, seccomp.Call{Name: c.Name})
		}
	}
	return out
}

// needed are the newer calls that glibc or the Go runtime make without having
// an older one at hand, as musl has.
var needed = map[string]bool{
	"accept4": true, "dup3": true, "epoll_create1": true, "eventfd2": true, "inotify_init1": true, "pipe2": true, "prlimit64": true, "signalfd4": true,
}

// TestProbes runs programs whose libraries try a newer call first under a
// profile that refuses those: with ENOSYS they go on, with EPERM they don't.
func TestProbes(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the profile is one for amd64")
	}
	bin := t.TempDir()
	programs := map[string][]string{
		"glibc":        {"gcc", "-O1", "-pthread", "-o", filepath.Join(bin, "glibc"), "testdata/probes/probe.c"},
		"glibc-static": {"gcc", "-O1", "-static", "-pthread", "-o", filepath.Join(bin, "glibc-static"), "testdata/probes/probe.c"},
		"musl":         {"musl-gcc", "-O1", "-static", "-pthread", "-o", filepath.Join(bin, "musl"), "testdata/probes/probe.c"},
		"go":           {"go", "build", "-o", filepath.Join(bin, "go"), "./testdata/probes/goprobe"},
	}
	p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: olderOnly()})
	oldest := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: slices.DeleteFunc(olderOnly(), func(c seccomp.Call) bool { return needed[c.Name] })})
	eperm := *p
	eperm.Syscalls = slices.DeleteFunc(slices.Clone(p.Syscalls), func(r seccomp.Rule) bool { return r.Action == seccomp.ActErrno })
	for name, command := range programs {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(command[0]); err != nil {
				if os.Getenv("CONFINE_REQUIRE_ALL") != "" {
					t.Fatalf("%s is not installed, and nothing may be left out", command[0])
				}
				t.Skipf("%s is not installed", command[0])
			}
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", command, err, out)
			}
			program := filepath.Join(bin, name)
			if out, err := underProfile(t, p, program); err != nil || !strings.Contains(out, "all well") {
				t.Errorf("with ENOSYS: %v\n%s", err, out)
			}
			if name == "musl" {
				if out, err := underProfile(t, oldest, program); err != nil || !strings.Contains(out, "all well") {
					t.Errorf("with the oldest calls alone: %v\n%s", err, out)
				}
			}
			out, err := underProfile(t, &eperm, program)
			t.Logf("with EPERM: %v: %s", err, strings.TrimSpace(out))
			if strings.HasPrefix(name, "glibc") && err == nil {
				t.Error("the program doesn't mind EPERM: it shows nothing")
			}
		})
	}
}

func underProfile(t *testing.T, p *seccomp.Profile, program string) (string, error) {
	t.Helper()
	data, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], program)
	cmd.Env = append(os.Environ(), confinedVariable+"="+file)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
