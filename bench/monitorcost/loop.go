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

// loopSource is the program that forks and executes.
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

// newBox puts a loop of executions into a box.
func newBox(loop string, execs int) (*box.Box, error) {
	return box.Start(exec.Command(loop, "/bin/true", strconv.Itoa(execs)))
}

// run lets a loop go and returns the processor time that it and what it
// executed took, in microseconds.
func run(b *box.Box) (float64, error) {
	s, err := b.Run()
	if err != nil {
		return 0, err
	}
	return float64((s.UserTime() + s.SystemTime()).Microseconds()), nil
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
