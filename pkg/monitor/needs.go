package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

const (
	// needsVariable asks a monitor's executable for what it needs, instead of
	// for its service.
	needsVariable = "CONFINE_MONITOR_NEEDS"
	// needsTime bounds the answer, where a host doesn't want it sooner.
	needsTime = 10 * time.Second
	// needsSize bounds it in bytes.
	needsSize = 64 << 10
)

// needs is what a monitor's executable says before it is trusted with
// anything.
type needs struct {
	// Capabilities of Linux, by name.
	Capabilities []string `json:"capabilities"`
}

// tell writes the answer for the host, if it was asked for.
func (n needs) tell(w io.Writer) (asked bool, err error) {
	if os.Getenv(needsVariable) == "" {
		return false, nil
	}
	return true, json.NewEncoder(w).Encode(n)
}

// needsOf asks an executable what it needs. It runs without any privilege for
// that. One that doesn't answer, because it was made without Serve, needs
// nothing.
func needsOf(ctx context.Context, exe *executable, within time.Duration) (needs, error) {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(limited, exe.path)
	cmd.Path, cmd.Args = exe.run(), []string{exe.path}
	cmd.Env = []string{needsVariable + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out limitedBuffer
	cmd.Stdout = &out
	err := onOwnThread(func() error {
		if err := dropPrivileges(nil); err != nil {
			return err
		}
		return cmd.Run()
	})
	if ctx.Err() != nil {
		return needs{}, ctx.Err()
	}
	if limited.Err() != nil {
		return needs{}, fmt.Errorf("it hung: it did not say within %v what it needs, and was killed; install a monitor that is made with package monitor", within)
	}
	if err != nil {
		return needs{}, nil
	}
	return parseNeeds(out.bytes), nil
}

// parseNeeds reads the answer; what isn't one needs nothing.
func parseNeeds(answer []byte) needs {
	var n needs
	if json.Unmarshal(answer, &n) != nil {
		return needs{}
	}
	return n
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct{ bytes []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p[:min(len(p), needsSize-len(b.bytes))]...)
	return len(p), nil
}

// onOwnThread runs f on a thread that ends with it, because it changes what
// the thread may do.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}
