package monitor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/confinehq/confine/pkg/monitor"
)

// limitFiles are where a hierarchy keeps a limit: the file of version 2, then
// that of version 1.
func limitFiles() map[string][]string {
	return map[string][]string{
		"memory":    {"memory.max", "memory.limit_in_bytes"},
		"processes": {"pids.max"},
		"weight":    {"cpu.weight", "cpu.shares"},
	}
}

// limitsOf reads the limits of the groups that hosts made for a process.
func limitsOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	found := map[string]string{}
	groups, err := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/confine-monitors/%d", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(groups, fmt.Sprintf("/sys/fs/cgroup/confine-monitors/%d", pid)) {
		members, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if strings.TrimSpace(string(members)) != fmt.Sprint(pid) {
			continue
		}
		for what, files := range limitFiles() {
			for _, name := range files {
				if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
					found[what] = strings.TrimSpace(string(text))
				}
				if text, err := os.ReadFile(filepath.Join(dir, "..", name)); err == nil {
					found[what+" of all"] = strings.TrimSpace(string(text))
				}
			}
		}
	}
	return found
}

// needGroups skips where the host has no controllers of cgroups at all.
func needGroups(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes cgroups")
	}
	text, err := os.ReadFile("/proc/cgroups")
	if err != nil || !strings.Contains(string(text), "memory") {
		t.Skip("the kernel has no memory cgroups")
	}
}

// A plugin is in groups with the limits of its configuration, which go with it.
func TestGroups(t *testing.T) {
	needGroups(t)
	client, err := startBad(t, "", func(cfg *monitor.HostConfig) {
		cfg.Limits = monitor.Limits{Memory: 200 << 20, Processes: 77, CPUWeight: 50}
	})
	if err != nil {
		t.Fatal(err)
	}
	got := limitsOf(t, client.PID())
	if got["memory"] != fmt.Sprint(200<<20) || got["processes"] != "77" || got["weight"] != "50" && got["weight"] != "512" {
		t.Errorf("limits %v, want 200 MiB, 77 processes and half of what others get", got)
	}
	second, err := startBad(t, "", func(cfg *monitor.HostConfig) { cfg.Limits.CPUWeight = 300 })
	if err != nil {
		t.Fatal(err)
	}
	// Other hosts on this machine may have heavier ones.
	got = limitsOf(t, second.PID())
	of := func(what string) int { n, _ := strconv.Atoi(got[what]); return n }
	if of("weight") == 0 || of("weight of all") < of("weight") {
		t.Errorf("limits %v: the share of all monitors is less than that of one", got)
	}
	second.Close()
	client.Close()
	if left := limitsOf(t, client.PID()); len(left) > 0 {
		t.Errorf("groups are left: %v", left)
	}
}

// A plugin that takes more memory than it may is ended; its host goes on.
func TestMemoryLimit(t *testing.T) {
	needGroups(t)
	if swaps, _ := os.ReadFile("/proc/swaps"); strings.Count(string(swaps), "\n") > 1 {
		t.Skip("what doesn't fit goes to the swap space first")
	}
	client, err := startBad(t, "eats memory", func(cfg *monitor.HostConfig) {
		cfg.Limits, cfg.AnswerTime = monitor.Limits{Memory: 128 << 20}, patience
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Describe(t.Context()); !errors.Is(err, monitor.ErrEnded) {
		t.Errorf("it took half a GiB: %v", err)
	}
}
