package proc

import (
	"os"
	"os/exec"
	"time"
)

// End asks a tool to end by a signal and returns when ended is closed; a tool
// that takes longer than the grace time is killed.
func End(tool *exec.Cmd, by os.Signal, ended <-chan struct{}, grace time.Duration) {
	_ = tool.Process.Signal(by)
	select {
	case <-ended:
	case <-time.After(grace):
		_ = tool.Process.Kill()
		<-ended
	}
}
