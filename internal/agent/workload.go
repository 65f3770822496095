package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/confinehq/confine/internal/agent/netns"
	"github.com/confinehq/confine/internal/agent/runner"
)

// runWorkload runs a command of the node in the container's network namespace
// and returns the last lines of its output.
func runWorkload(ctx context.Context, ns *netns.Namespace, argv []string, containerID string, pid int) ([]string, error) {
	tail := runner.NewTail()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(),
		"CONFINE_CONTAINER_ID="+containerID,
		"CONFINE_CONTAINER_PID="+strconv.Itoa(pid),
		"CONFINE_ROOT=/proc/"+strconv.Itoa(pid)+"/root")
	cmd.Stdout, cmd.Stderr = tail, tail
	// A group of its own, so that what it starts ends with it; and it ends
	// with the thread that started it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := ns.Run(cmd)
	if err == nil {
		return tail.Lines(), nil
	}
	detail := fmt.Sprintf("workload %q failed: %v", strings.Join(argv, " "), err)
	if lines := tail.Lines(); len(lines) > 0 {
		detail += ": " + strings.Join(lines[max(0, len(lines)-3):], "; ")
	}
	return tail.Lines(), fmt.Errorf("%s", detail)
}
