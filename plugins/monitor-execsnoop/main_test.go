package main_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/monitortest"
)

// plugin is the binary under test, built once.
var plugin string

func TestMain(m *testing.M) { os.Exit(monitortest.Main(m, "execsnoop", &plugin)) }

// need skips where the host can't run a tool at all.
func need(t *testing.T, tool string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the monitor needs root")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel has no BTF")
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/bin"} {
		if path := filepath.Join(dir, tool); exec.Command("test", "-x", path).Run() == nil {
			return path
		}
	}
	t.Skipf("%s is not installed: scripts/install-test-deps", tool)
	return ""
}

// start starts the monitor with options.
func start(t *testing.T, options map[string]string) *monitor.Client {
	t.Helper()
	return monitortest.Start(t, monitortest.Config{Path: plugin, Options: options})
}

func TestConformance(t *testing.T) {
	monitortest.Run(t, monitortest.Config{Path: plugin, Options: map[string]string{"tool": need(t, "execsnoop")}})
}

func TestConformanceBT(t *testing.T) {
	monitortest.Run(t, monitortest.Config{Path: plugin, Options: map[string]string{"tool": need(t, "execsnoop.bt")}})
}

// bcc's execsnoop compiles a program for kprobes with the kernel's headers, which
// few machines have; testdata has it print what another one sees.
func TestConformanceBCC(t *testing.T) {
	need(t, "execsnoop-bpfcc")
	need(t, "execsnoop")
	tool, err := filepath.Abs("testdata/execsnoop-bpfcc")
	if err != nil {
		t.Fatal(err)
	}
	monitortest.Run(t, monitortest.Config{Path: plugin, Options: map[string]string{"tool": tool}, ShortLived: true})
}
