package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/bench/box"
	"github.com/confinehq/confine/pkg/monitor/monitortest"
)

var plugin string

func TestMain(m *testing.M) { os.Exit(monitortest.Main(m, "poll", &plugin)) }

// copyOf copies a program into a folder.
func copyOf(t *testing.T, program, dir, name string) string {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// talk starts a command and returns what it says and what it hears.
func talk(t *testing.T, cmd *exec.Cmd) (*bufio.Reader, io.Writer) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return bufio.NewReader(out), in
}

// A runtime on its way into the container, whose file isn't there, has not been
// executed in it; what it then executes there is told.
func TestEnteringRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("monitors are started as root")
	}
	dir, outside := t.TempDir(), t.TempDir()
	var programs []string
	for _, name := range []string{"first", "second", "entered"} {
		programs = append(programs, copyOf(t, "/bin/sleep", dir, name))
	}
	enter := filepath.Join(outside, "enter")
	if msg, err := exec.Command("cc", "-o", enter, "testdata/enter.c").CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, msg)
	}
	cmd := exec.Command("/bin/sh", "-c", `read x; mount -t tmpfs none "$1"; echo; read x; "$2" 600 & read x; "$3" 600`, "sh", outside, programs[0], programs[1])
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b, err := box.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	w, err := monitortest.Start(t, monitortest.Config{Path: plugin}).Watch(t.Context(), b.Scope())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Cancel()
	told := func(program string) {
		t.Helper()
		for m := range w.Events() {
			switch path := m.GetExec().GetPath(); path {
			case program:
				return
			case enter:
				t.Fatal("it tells of the program of who came from outside")
			}
		}
		t.Fatalf("%s isn't told: %v", program, w.Err())
	}
	fmt.Fprintln(b.Stdin)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	says, hears := talk(t, exec.Command(enter, fmt.Sprintf("/proc/%d/ns/mnt", b.Scope().GetPid()), programs[2]))
	if line, err := says.ReadString('\n'); line != "in\n" {
		t.Fatalf("it can't enter: %q, %v", line, err)
	}
	// What is told of the second one was seen in another look than of the first,
	// so that one whole look lies between, which saw who entered.
	fmt.Fprintln(b.Stdin)
	told(programs[0])
	fmt.Fprintln(b.Stdin)
	told(programs[1])
	fmt.Fprintln(hears)
	told(programs[2])
}
