package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/bench/box"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// slowly runs a tool and holds back what it tells of the program "late".
const slowly = `#!/usr/bin/python3
import ctypes, signal, subprocess, sys, time
source = subprocess.Popen(["%s"] + sys.argv[1:], stdout=subprocess.PIPE, preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))
for line in source.stdout:
    if b"/late\"" in line:
        time.sleep(1)
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
`

// write makes an executable file.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// What was found in /proc before the tool told of it is told once.
func TestToldLate(t *testing.T) {
	need(t, "execsnoop-bpfcc")
	need(t, "execsnoop")
	real, err := filepath.Abs("testdata/execsnoop-bpfcc")
	if err != nil {
		t.Fatal(err)
	}
	tool := write(t, "execsnoop", fmt.Appendf(nil, slowly, real))
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	late := write(t, "late", sleep)
	c := start(t, map[string]string{"tool": tool})
	b, err := box.Start(exec.Command("/bin/sh", "-c", `read x; "$1" 3; true`, "sh", late))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Group == "" {
		t.Skip("no control groups of version 2 are mounted")
	}
	times := 0
	snap := watched(t, c, b, b.Scope(), func(ev *confinev1.WatchResponse) {
		if ev.GetExec().GetPath() == late {
			times++
		}
	})
	if times != 1 {
		t.Errorf("told %d times, want once; lost %v", times, snap.GetLosses())
	}
}
