package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/pkg/monitor/monitortest"
)

// plugin is the binary under test, built once.
var plugin string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "monitor-sysdig-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	plugin = filepath.Join(dir, "confine-monitor-sysdig")
	if out, err := exec.Command("go", "build", "-o", plugin, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// needSysdig skips where sysdig isn't installed.
func needSysdig(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("monitors are started as root")
	}
	if _, err := exec.LookPath("sysdig"); err != nil {
		t.Skip("sysdig is not installed: scripts/install-test-deps")
	}
}

// capture is the path of a trace of one curl.
func capture(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("testdata/curl_google.scap")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConformance(t *testing.T) {
	needSysdig(t)
	monitortest.Run(t, monitortest.Config{Path: plugin, Capture: capture(t)})
}
