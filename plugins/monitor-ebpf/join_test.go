package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// A task that the monitor has found outside of its scope can come into it later,
// by each way that the kernel has; from then on its calls are recorded.
func TestJoinsLater(t *testing.T) {
	const group = "confine-test-join"
	join := compile(t, "join.c", "-static")
	mount := func(_ *testing.T, tr *tree) *confinev1.Scope {
		return &confinev1.Scope{MountNamespace: tr.namespace("mnt")}
	}
	pid := func(_ *testing.T, tr *tree) *confinev1.Scope {
		return &confinev1.Scope{PidNamespace: tr.namespace("pid")}
	}
	for _, c := range []struct {
		name, how, namespace string
		scope                func(t *testing.T, tr *tree) *confinev1.Scope
	}{
		{"setns to a mount namespace", "itself", "mnt", mount},
		{"setns to a mount namespace, then fork", "child", "mnt", mount},
		{"thread in a mount namespace", "thread", "mnt", mount},
		{"fork into a PID namespace", "child", "pid", pid},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := start(t)
			container := newTree(t, unshared(), "/bin/true")
			s := observe(t, client, c.scope(t, container), func() {
				args := []string{c.how, fmt.Sprintf("/proc/%d/ns/%s", container.pid(), c.namespace)}
				joins(t, exec.Command(join, args...), func(string) {})
				container.run()
			})
			s.lossless(t)
			madeOnly(t, s, syscall.SYS_UMASK, syscall.SYS_ALARM)
		})
	}
	t.Run("move to a cgroup", func(t *testing.T) {
		client := start(t)
		dir := newCgroup(t, "", group)
		s := observe(t, client, &confinev1.Scope{CgroupId: inode(t, dir)}, func() {
			joins(t, exec.Command(join, "itself"), func(id string) {
				write(t, filepath.Join(dir, "cgroup.procs"), id)
			})
		})
		s.lossless(t)
		madeOnly(t, s, syscall.SYS_UMASK, syscall.SYS_ALARM)
	})
	t.Run("move of a thread to a cgroup", func(t *testing.T) {
		client := start(t)
		domain := newCgroup(t, "", group)
		dir := newCgroup(t, domain, "threads")
		write(t, filepath.Join(dir, "cgroup.type"), "threaded")
		s := observe(t, client, &confinev1.Scope{CgroupId: inode(t, dir)}, func() {
			cmd := exec.Command(join, "thread")
			cmd.SysProcAttr = inCgroup(t, domain)
			joins(t, cmd, func(id string) { write(t, filepath.Join(dir, "cgroup.threads"), id) })
		})
		s.lossless(t)
		madeOnly(t, s, syscall.SYS_UMASK, syscall.SYS_ALARM)
	})
}

// A process that never stops calling is found outside between the moments at
// which the programs are attached and at which it is put in the scope.
func TestSeedOfBusyProcess(t *testing.T) {
	client := start(t)
	gate := filepath.Join(t.TempDir(), "gate")
	cmd := exec.Command("/bin/sh", "-c", `until [ -e "$0" ]; do :; done; umask 022`, gate)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := observe(t, client, &confinev1.Scope{Pid: int32(cmd.Process.Pid)}, func() {
		write(t, gate, "")
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	s.lossless(t)
	madeOnly(t, s, syscall.SYS_UMASK, syscall.SYS_ALARM)
}

// joins runs join.c and moves it, by its number, before it goes on.
func joins(t *testing.T, cmd *exec.Cmd, move func(id string)) {
	t.Helper()
	in, out := piped(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	move(strings.TrimSpace(line))
	fmt.Fprintln(in)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// madeOnly checks that one call was recorded and another wasn't.
func madeOnly(t *testing.T, s *seen, made, not int32) {
	t.Helper()
	var all []int32
	for _, r := range s.snapshot.GetRecorded() {
		all = append(all, r.GetNrs()...)
	}
	if !slices.Contains(all, made) || slices.Contains(all, not) {
		t.Errorf("recorded %v, want %d among them and %d not", s.snapshot.GetRecorded(), made, not)
	}
}
