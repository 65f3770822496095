package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/internal/storm"
	"github.com/confinehq/confine/pkg/monitor"
)

// The short form of the benchmark: at full speed the default monitor sees each
// execution once.
func TestLosses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the monitor needs root")
	}
	plugin := filepath.Join(t.TempDir(), "confine-monitor-ebpf")
	if out, err := exec.Command("go", "build", "-o", plugin, "../../plugins/monitor-ebpf").CombinedOutput(); err != nil {
		t.Fatalf("build the monitor: %v\n%s", err, out)
	}
	client, err := monitor.Start(context.Background(), monitor.HostConfig{Path: plugin})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Describe(context.Background()); err != nil {
		if _, btf := os.Stat("/sys/kernel/btf/vmlinux"); btf != nil {
			t.Skipf("the kernel has no BTF: %v", err)
		}
		t.Fatal(err)
	}
	plan := storm.Default("", "bench")
	plan.Count = 5000
	o, err := stormOne(context.Background(), client, plan)
	if err != nil {
		t.Fatal(err)
	}
	if o.Made < 5000 || o.Seen != o.Made || o.Missed+o.Duplicated+o.Extra+o.admitted > 0 {
		t.Errorf("%+v, want each execution once", o)
	}
}
