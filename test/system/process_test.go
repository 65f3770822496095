package system

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stopTime bounds the orderly end of a daemon.
const stopTime = 60 * time.Second

// process is a daemon under test.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	// done is closed when it has ended, err says how.
	done chan struct{}
	err  error
}

// start runs a daemon until the end of the test. What it prints shows when
// the test fails.
func start(t *testing.T, dir, name string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.tail())
		}
	})
	return p
}

// ended reports whether the daemon is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the daemon in good order; it must end by itself and well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.ended() {
		return
	}
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			t.Errorf("%s ended with %v after SIGTERM", p.name, p.err)
		}
	case <-time.After(stopTime):
		t.Errorf("%s is still there %s after SIGTERM", p.name, stopTime)
		p.kill()
	}
}

// kill ends the daemon as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// tail returns the last part of what the daemon printed.
func (p *process) tail() string {
	const most = 12 << 10
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}

// until waits for a condition, and fails the test when it never holds.
func until(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("after %s still not: %s", limit, what)
}

// children returns the processes below a process whose program has this path.
func children(parent int, program string) []int {
	var found []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		pid, ppid, err := parse(stat)
		if err != nil || ppid != parent {
			continue
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == program {
			found = append(found, pid)
		}
	}
	return found
}

// parse reads process and parent of a /proc/PID/stat file.
func parse(stat string) (pid, ppid int, err error) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return 0, 0, err
	}
	head, rest, ok := strings.Cut(string(b), " (")
	end := strings.LastIndex(rest, ") ")
	if !ok || end < 0 {
		return 0, 0, errors.New("no stat file")
	}
	fields := strings.Fields(rest[end+2:])
	if len(fields) < 2 {
		return 0, 0, errors.New("no stat file")
	}
	if pid, err = strconv.Atoi(head); err != nil {
		return 0, 0, err
	}
	ppid, err = strconv.Atoi(fields[1])
	return pid, ppid, err
}
