package monitortest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Main builds the monitor whose package is in the working folder, as
// confine-monitor-NAME, puts its path into *plugin and runs the tests. It
// returns the exit code, for TestMain.
func Main(m *testing.M, name string, plugin *string) int {
	dir, err := os.MkdirTemp("", "monitor-"+name+"-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*plugin = filepath.Join(dir, "confine-monitor-"+name)
	if out, err := exec.Command("go", "build", "-o", *plugin, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
