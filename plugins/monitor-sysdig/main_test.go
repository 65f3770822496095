package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/monitortest"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// plugin is the binary under test, built once.
var plugin string

func TestMain(m *testing.M) { os.Exit(monitortest.Main(m, "sysdig", &plugin)) }

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

// start starts the monitor with options.
func start(t *testing.T, options map[string]string) *monitor.Client {
	t.Helper()
	return monitortest.Start(t, monitortest.Config{Path: plugin, Options: options})
}

// replay watches a trace in the root of a process and returns what is told.
func replay(t *testing.T, c *monitor.Client, file, container string) ([]*confinev1.WatchResponse, *confinev1.SnapshotResponse, error) {
	t.Helper()
	w, err := c.Watch(t.Context(), &confinev1.Scope{Pid: int32(os.Getpid()), Capture: &confinev1.Capture{Path: file, Container: container}})
	if err != nil {
		return nil, nil, err
	}
	var events []*confinev1.WatchResponse
	read := make(chan struct{})
	go func() {
		defer close(read)
		for e := range w.Events() {
			events = append(events, e)
		}
	}()
	snap, err := w.Stop(t.Context())
	<-read
	return events, snap, err
}

func TestConformance(t *testing.T) {
	needSysdig(t)
	monitortest.Run(t, monitortest.Config{Path: plugin, Capture: capture(t)})
}
