package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errLeftOut says that what a program needs isn't there.
var errLeftOut = errors.New("left out")

// runner runs programs in folders of their own.
type runner struct {
	src     string // folder of the sources
	install bool
}

// command runs a line of shell in a folder.
func (r *runner) command(ctx context.Context, dir, line string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	r.prepare(cmd, dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", line, err, tail(out))
	}
	return nil
}

func (r *runner) prepare(cmd *exec.Cmd, dir string) {
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DIR="+dir, "SRC="+r.src, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
}

func tail(b []byte) string {
	const most = 2000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return strings.TrimSpace(string(b))
}

// packages installs what is missing.
func (r *runner) packages(ctx context.Context, names []string) error {
	var missing []string
	for _, n := range names {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f=${db:Status-Status}", n).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if !r.install {
		return fmt.Errorf("%w: not installed: %s", errLeftOut, strings.Join(missing, " "))
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", `. scripts/lib.sh; need "$@"`, "accuracy", missing[0])
	cmd.Args = append(cmd.Args, missing[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: install %s: %w: %s", errLeftOut, strings.Join(missing, " "), err, tail(out))
	}
	return nil
}

// run makes a program's folder and sets it up, and calls watch, which is to run
// it there. logs is another folder: a program may do as it likes with its own.
func (r *runner) run(ctx context.Context, p program, watch func(dir, logs string) error) error {
	if err := r.packages(ctx, p.packages); err != nil {
		return err
	}
	for _, n := range p.needs {
		if _, err := exec.LookPath(n); err != nil {
			return fmt.Errorf("%w: there is no %s", errLeftOut, n)
		}
	}
	dir, err := os.MkdirTemp("", "accuracy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, line := range p.setup {
		c, cancel := context.WithTimeout(ctx, 5*time.Minute)
		err := r.command(c, dir, line)
		cancel()
		if err != nil {
			return fmt.Errorf("%w: setup: %w", errLeftOut, err)
		}
	}
	logs, err := os.MkdirTemp("", "accuracy-log-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(logs)
	return watch(dir, logs)
}

// trace runs a program under strace and returns what it did.
func (r *runner) trace(ctx context.Context, p program) (t trace, err error) {
	err = r.run(ctx, p, func(dir, logs string) error {
		log := filepath.Join(logs, "strace.log")
		w := watcher{command: []string{"strace", "-f", "-y", "-qq", "-X", "raw", "--pidns-translation", "-s", "0", "-o", log, "sh"}, start: 2 * time.Second, end: end}
		if err := r.watched(ctx, dir, p, w); err != nil {
			return err
		}
		f, err := os.Open(log)
		if err != nil {
			return err
		}
		defer f.Close()
		t, _, err = readTrace(f, dir)
		return err
	})
	return t, err
}

// watcher is what a program runs under.
type watcher struct {
	command []string      // with the shell that is to execute the program
	start   time.Duration // that daemons need until they listen
	// end signals all processes of the program; pid is that of the command.
	end func(pid int, sig syscall.Signal)
}

// watched runs a program until it has ended, or its load has and then the limit.
func (r *runner) watched(ctx context.Context, dir string, p program, w watcher) error {
	ctx, cancel := context.WithTimeout(ctx, p.limit+w.start+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.command[0], append(w.command[1:len(w.command):len(w.command)], "-c", "exec "+p.run)...)
	r.prepare(cmd, dir)
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", w.command[0], err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	if p.load != "" {
		time.Sleep(w.start)
		c, cancel := context.WithTimeout(ctx, p.limit)
		err = r.command(c, dir, p.load)
		cancel()
	}
	limit := p.limit
	if p.load != "" {
		limit = 5 * time.Second
	}
	select {
	case <-ended:
	case <-time.After(limit):
		w.end(cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			w.end(cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	}
	if err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("load: %w\nthe program printed: %s", err, tail(said))
	}
	return nil
}

// end signals all processes that a tracer traces.
func end(tracer int, sig syscall.Signal) {
	list, _ := filepath.Glob("/proc/[0-9]*/status")
	want := "TracerPid:\t" + strconv.Itoa(tracer) + "\n"
	for _, f := range list {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(b), want) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			_ = syscall.Kill(pid, sig)
		}
	}
}
