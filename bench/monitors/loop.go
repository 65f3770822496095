package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/confinehq/confine/bench/box"
)

// loopSource is the program whose slowdown is measured.
//
//go:embed testdata/loop.c
var loopSource string

func compileLoop(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "loop")
	cc := exec.CommandContext(ctx, "cc", "-O1", "-x", "c", "-o", out, "-")
	cc.Stdin = strings.NewReader(loopSource)
	if text, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the loop: %w\n%s", err, text)
	}
	return out, nil
}

// loop is one of the two kinds: of executions, or of calls.
type loop struct {
	path string
	args []string
}

func execLoop(path string, execs int) loop {
	return loop{path, []string{"exec", strconv.Itoa(execs), "/bin/true"}}
}

func callLoop(path string, calls int) loop { return loop{path, []string{"call", strconv.Itoa(calls)}} }

func (l loop) box() (*box.Box, error) { return box.Start(exec.Command(l.path, l.args...)) }

// took is how long a loop took.
type took struct {
	cpu  time.Duration // of the loop and what it executed
	wall time.Duration
}

func timed(b *box.Box) (took, error) {
	began := time.Now()
	s, err := b.Run()
	if err != nil {
		return took{}, err
	}
	return took{s.UserTime() + s.SystemTime(), time.Since(began)}, nil
}

// processTime is the processor time that a process has used.
func processTime(pid int) time.Duration {
	var total time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		total += time.Duration(ns)
	}
	return total
}
