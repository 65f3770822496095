package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// canary executes something on a processor (-1: on any) and reports whether
// the tool sees it within a time.
func (s *stream) canary(ctx context.Context, cpu int, within time.Duration) (seen bool, err error) {
	s.mu.Lock()
	s.starting++
	s.mu.Unlock()
	pid, err := execute(ctx, cpu)
	s.mu.Lock()
	s.starting--
	early := s.early[int32(pid)]
	if s.starting == 0 {
		clear(s.early)
	}
	done := make(chan struct{})
	if err == nil && !early {
		s.awaited[int32(pid)] = done
	}
	s.mu.Unlock()
	if err != nil || early {
		return early, err
	}
	defer func() {
		s.mu.Lock()
		delete(s.awaited, int32(pid))
		s.mu.Unlock()
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-done:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-s.ended:
		return false, s.failure()
	case <-ctx.Done():
		return false, fmt.Errorf("it does not report what is executed on processor %d%s: %w", cpu, s.said(), ctx.Err())
	}
}

// execute runs this program once, for nothing, on a processor.
func execute(ctx context.Context, cpu int) (pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	type outcome struct {
		pid int
		err error
	}
	result := make(chan outcome, 1)
	go func() {
		// The thread ends with the goroutine: its affinity is its own.
		runtime.LockOSThread()
		if cpu >= 0 {
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				result <- outcome{0, fmt.Errorf("execute something on processor %d: %w", cpu, err)}
				return
			}
		}
		cmd := exec.CommandContext(ctx, self, roleCanary)
		if err := cmd.Start(); err != nil {
			result <- outcome{0, err}
			return
		}
		result <- outcome{cmd.Process.Pid, cmd.Wait()}
	}()
	done := <-result
	return done.pid, done.err
}

// onlineCPUs lists the processors that this process may run on.
func onlineCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("list processors: %w", err)
	}
	var out []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			out = append(out, i)
		}
	}
	return out, nil
}
