package monitor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What a killed host left goes with the next start; what another is about to
// move its monitor into stays.
func TestSweepGroups(t *testing.T) {
	parent := t.TempDir()
	gone := exec.Command("/bin/true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	left, own := filepath.Join(parent, fmt.Sprint(gone.Process.Pid)), filepath.Join(parent, fmt.Sprint(os.Getpid()))
	for _, dir := range []string{left, own} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sweepGroups(parent)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group of a process that ended: %v", err)
	}
	if _, err := os.Stat(own); err != nil {
		t.Errorf("the group of a process that runs: %v", err)
	}
}
