package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// A tool that is missing, or is none, is named with what to do.
func TestMissingTool(t *testing.T) {
	need(t, "execsnoop")
	other := filepath.Join(t.TempDir(), "execsnoop")
	if err := os.WriteFile(other, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/no/such/execsnoop": "apt-get install",
		other:                "doesn't know",
	} {
		_, err := start(t, map[string]string{"tool": path}).Describe(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to say %q", path, err, want)
		}
	}
}

// children lists the processes of a parent with a thread name.
func children(t *testing.T, parent int, comm string) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		open, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
		fields := strings.Fields(string(b[end+1:]))
		if string(b[open+1:end]) != comm || len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, pid)
	}
	return out
}

// A tool that dies ends the watch with the reason; the monitor lives, and the
// next watch has a tool of its own.
func TestToolKilled(t *testing.T) {
	c := start(t, map[string]string{"tool": need(t, "execsnoop")})
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	scope := &confinev1.Scope{Pid: int32(cmd.Process.Pid)}
	w, err := c.Watch(t.Context(), scope)
	if err != nil {
		t.Fatal(err)
	}
	tools := children(t, c.PID(), "execsnoop")
	if len(tools) != 1 {
		t.Fatalf("%d tools run for one watch", len(tools))
	}
	if err := unix.Kill(tools[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range w.Events() {
	}
	if err := w.Err(); err == nil || errors.Is(err, monitor.ErrEnded) || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), "execsnoop") {
		t.Errorf("the watch of a tool that was killed: %v", err)
	}
	again, err := c.Watch(t.Context(), scope)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range again.Events() {
		}
	}()
	if _, err := again.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(time.Minute); len(children(t, c.PID(), "execsnoop")) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a tool runs after the end of its watch")
		}
	}
}
