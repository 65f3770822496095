package floor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/syscalls"
)

// runcPath returns the installed runtime.
func runcPath(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed")
	}
	return path
}

func testSpec(t *testing.T, noNewPrivs bool) *oci.Spec {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), "test")
	spec, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: "floor"})
	if err != nil {
		t.Fatal(err)
	}
	spec.Process.NoNewPrivileges = noNewPrivs
	return spec
}

func namesOf(calls []int32) []string {
	var names []string
	for _, nr := range calls {
		name, _ := syscalls.Name(syscalls.AMD64, int(nr))
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestMeasure measures the installed runtime both ways. What both floors must
// hold is the runtime's last call; without no_new_privs the privileges are
// dropped under the filter.
func TestMeasure(t *testing.T) {
	path := runcPath(t)
	names := map[bool][]string{}
	for _, nnp := range []bool{true, false} {
		calls, err := Measure(t.Context(), path, t.TempDir(), testSpec(t, nnp))
		if err != nil {
			t.Fatal(err)
		}
		names[nnp] = namesOf(calls)
		t.Logf("no_new_privs %v: %v", nnp, names[nnp])
		for _, want := range []string{"execve", "futex", "rt_sigreturn", "mmap"} {
			if !slices.Contains(names[nnp], want) {
				t.Errorf("no_new_privs %v: %s is missing", nnp, want)
			}
		}
		if slices.Contains(names[nnp], "pivot_root") {
			t.Errorf("no_new_privs %v: holds a call of before the filter", nnp)
		}
	}
	for _, want := range []string{"capset", "setuid", "setgid"} {
		if !slices.Contains(names[false], want) {
			t.Errorf("without no_new_privs %s is missing", want)
		}
	}
	if slices.Contains(names[true], "setuid") {
		t.Error("with no_new_privs, the user is changed before the filter is loaded")
	}
}

// exiting is code that calls exit_group(0).
func exiting() []byte {
	if runtime.GOARCH == "arm64" {
		return []byte{0x00, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}
	}
	return []byte{0x31, 0xff, 0xb8, 0xe7, 0x00, 0x00, 0x00, 0x0f, 0x05}
}

// TestFloorHolds runs containers whose only program makes one call, under
// profiles of the floor and that call alone, on a busy machine, so that the
// runtime's own threads come in between; and under the same without one call
// of the floor, which must fail.
func TestFloorHolds(t *testing.T) {
	path := runcPath(t)
	var stop atomic.Bool
	defer stop.Store(true)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for !stop.Load() {
			}
		}()
	}
	for _, nnp := range []bool{true, false} {
		floor, err := Measure(t.Context(), path, t.TempDir(), testSpec(t, nnp))
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range []specs.User{{}, {UID: 1000, GID: 1000, AdditionalGids: []uint32{7}}} {
			allowed := append(namesOf(floor), "exit_group")
			for range 6 {
				if err := runUnder(t, path, nnp, user, allowed); err != nil {
					t.Fatalf("no_new_privs %v, user %d: %v", nnp, user.UID, err)
				}
			}
			without := slices.DeleteFunc(slices.Clone(allowed), func(n string) bool { return n == "execve" })
			if err := runUnder(t, path, nnp, user, without); err == nil {
				t.Error("the profile isn't enforced")
			}
		}
	}
}

// runUnder runs the exiting program with a profile that allows the named
// calls.
func runUnder(t *testing.T, path string, nnp bool, user specs.User, allowed []string) error {
	t.Helper()
	spec := testSpec(t, nnp)
	b, err := newBundle(path, t.TempDir(), spec, user)
	if err != nil {
		t.Fatal(err)
	}
	defer b.remove(t.Context())
	enforced := b.spec(spec, user, "exit")
	errno := uint(unix.EPERM)
	enforced.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno,
		Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls:      []specs.LinuxSyscall{{Names: allowed, Action: specs.ActAllow}},
	}
	if err := b.add("exit", exiting(), enforced); err != nil {
		t.Fatal(err)
	}
	_, err = b.run(t.Context(), untraced, "run", "--bundle", filepath.Join(b.dir, "exit"), b.id())
	return err
}

// runs reports whether a process is there and no zombie.
func runs(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil
}

// TestClean finds a container that a killed process left.
func TestClean(t *testing.T) {
	path, dir := runcPath(t), t.TempDir()
	b, err := newBundle(path, dir, testSpec(t, true), specs.User{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.remove(t.Context())
	if _, err := b.run(t.Context(), untraced, "run", "--detach", "--bundle", filepath.Join(b.dir, "wait"), b.id()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(b.dir, "state", b.id(), "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		PID int `json:"init_process_pid"`
	}
	if err := json.Unmarshal(raw, &state); err != nil || !runs(state.PID) {
		t.Fatalf("the container does not run: %v", err)
	}
	if err := Clean(t.Context(), path, dir); err != nil {
		t.Fatal(err)
	}
	if runs(state.PID) {
		t.Error("the container still runs")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestTraceEndsWithItsContext gives up in the middle: what was traced has ended
// when trace returns, a process included that left the runtime's own group and
// waits for nobody.
func TestTraceEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.Command("/bin/sh", "-c", `setsid sh -c 'echo $$ >"$0.new"; mv "$0.new" "$0"; while :; do sleep 1000; done' "$0" & exit`, path)
	done := make(chan error, 1)
	go func() {
		_, err := trace(ctx, cmd)
		done <- err
	}()
	var pid int
	for pid == 0 {
		if raw, err := os.ReadFile(path); err == nil {
			if _, err := fmt.Sscan(string(raw), &pid); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case err := <-done:
			t.Fatalf("ended before it was told to: %v", err)
		default:
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if runs(pid) {
		t.Errorf("process %d still runs", pid)
	}
}

// TestTraceMeetsNoOtherChildren traces while the threads that there are have
// children of their own, which run on and are waited for by those who started
// them.
func TestTraceMeetsNoOtherChildren(t *testing.T) {
	const threads = 32
	others := make(chan *exec.Cmd, threads)
	var ready, unlock sync.WaitGroup
	ready.Add(threads)
	unlock.Add(1)
	for range threads {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			cmd := exec.Command("/bin/sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Error(err)
			}
			others <- cmd
			ready.Done()
			unlock.Wait() // so that each one has a thread of its own
		}()
	}
	ready.Wait()
	unlock.Done()
	close(others)
	for range 8 {
		if _, err := trace(t.Context(), exec.Command("/bin/true")); err == nil || !strings.Contains(err.Error(), "no filter") {
			t.Errorf("error %v", err)
		}
	}
	for cmd := range others {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("wait: %v", err)
		}
	}
}
