package main

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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

// loop is a process in a box that makes steps when it is told to.
type loop struct {
	box     *box.Box
	answers *bufio.Reader
}

func startLoop(path string, on *unix.CPUSet) (*loop, error) {
	cmd := exec.Command(path, "/bin/true")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b, err := box.Start(cmd)
	if err != nil {
		return nil, err
	}
	if err := pin(cmd.Process.Pid, on); err != nil {
		b.Close()
		return nil, err
	}
	return &loop{b, bufio.NewReader(out)}, nil
}

// took is how long steps took.
type took struct {
	cpu  time.Duration // of the loop and what it executed
	wall time.Duration
}

// run has the loop make count steps of a kind, "exec" or "call".
func (l *loop) run(kind string, count int) (took, error) {
	if _, err := fmt.Fprintln(l.box.Stdin, kind, count); err != nil {
		return took{}, err
	}
	answer, err := l.answers.ReadString('\n')
	if err != nil {
		return took{}, fmt.Errorf("the loop ended: %w", err)
	}
	var t took
	if _, err := fmt.Sscan(answer, &t.cpu, &t.wall); err != nil {
		return took{}, fmt.Errorf("the loop says %q: %w", answer, err)
	}
	return t, nil
}

// processors are those of the loops and those of everything else, so that what
// runs beside a loop doesn't count as a slower loop.
type processors struct{ loops, others unix.CPUSet }

// split takes one processor for the loops; if there is but one, all share it.
func split() (p processors, err error) {
	if err := unix.SchedGetaffinity(0, &p.others); err != nil {
		return p, fmt.Errorf("find the processors: %w", err)
	}
	if p.others.Count() == 1 {
		p.loops = p.others
		return p, nil
	}
	first := 0
	for !p.others.IsSet(first) {
		first++
	}
	p.loops.Set(first)
	p.others.Clear(first)
	return p, nil
}

// pin has a process run on some processors only, and what it starts later.
func pin(pid int, on *unix.CPUSet) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, on); err != nil {
			return fmt.Errorf("choose the processors of a process: %w", err)
		}
	}
	return nil
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
