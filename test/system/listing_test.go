package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// build makes a program of this repository.
func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	path := filepath.Join(dir, filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// newWorldOf is newWorld with an agent's configuration.
func newWorldOf(t *testing.T, config string, imageNames ...string) *world {
	t.Helper()
	w := newMachine(t, imageNames...)
	w.config = filepath.Join(w.dir, "agent.yaml")
	if err := os.WriteFile(w.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w.startServer(t)
	token, _, code := w.ctl(t, "token", "create", "--role", "agent")
	if code != 0 {
		t.Fatal("no token")
	}
	w.startAgent(t, strings.TrimSpace(token))
	return w
}

// monitors runs 'confinectl monitors -o json' and returns those of the only
// node, by name.
func (w *world) monitors(t *testing.T, args ...string) map[string]*confinev1.MonitorStatus {
	t.Helper()
	out, stderr, code := w.ctl(t, append([]string{"monitors", "-o", "json"}, args...)...)
	var list confinev1.DescribeMonitorsResponse
	if err := protojson.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.GetNodes()) != 1 {
		t.Fatalf("exit code %d, %v:\n%s%s", code, err, out, stderr)
	}
	all := map[string]*confinev1.MonitorStatus{}
	for _, m := range list.GetNodes()[0].GetMonitors() {
		all[m.GetName()] = m
	}
	return all
}

// TestMonitors lists monitors that work, beside broken ones, while one of them
// is at work.
func TestMonitors(t *testing.T) {
	needMachine(t)
	tools := t.TempDir()
	poll, bad := build(t, tools, "../../examples/monitor-poll"), build(t, tools, "../../pkg/monitor/testdata/badmonitor")
	old := filepath.Join(tools, "old-sysdig")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho sysdig version 0.26.7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorldOf(t, fmt.Sprintf(`monitors:
  ebpf: {memory: 512MiB, options: {ring-bytes: 4194304}}
  hangs: {path: %[1]s, options: {how: hangs when described}}
  crashes: {path: %[1]s, options: {how: crashes when described}}
  newer: {path: %[1]s, options: {how: newer}}
  changed: {path: %[1]s, sha256: %[2]s}
  weak: {path: %[3]s, capabilities: []}
  poll: {path: %[4]s}
  oldsysdig: {path: %[5]s, options: {tool: %[6]s}}
  oldexecsnoop: {path: %[7]s, options: {tool: /no/such/execsnoop}}
  typo: {memory: 1GiB}
`, bad, strings.Repeat("ab", 32), bin(t, "plugins/confine-monitor-ebpf"), poll,
		bin(t, "plugins/confine-monitor-sysdig"), old, bin(t, "plugins/confine-monitor-execsnoop")), "nginx")
	busy := w.begin(t, "stress", "--node", "n1", "--count", "5", "nginx")
	all := w.monitors(t, "--node", "n1")
	for name, want := range map[string]string{
		"hangs": "it hung", "crashes": "ended unexpectedly", "newer": "update confine-agent", "changed": "is pinned",
		"weak": "CAP_BPF", "typo": "install it there, or give its path", "oldsysdig": "0.26.7 is too old", "oldexecsnoop": "apt-get install libbpf-tools",
	} {
		if m := all[name]; m.GetWorks() || !strings.Contains(m.GetProblem(), want) {
			t.Errorf("%s works %v: %q, want %q", name, m.GetWorks(), m.GetProblem(), want)
		}
	}
	checkWorking(t, all)
	out, stderr, code := w.ctl(t, "monitors")
	out = strings.Join(strings.Fields(out), " ") // lines are broken anywhere
	if code != 0 || !strings.Contains(out, "used when none is named") || !strings.Contains(out, "calls refused") || !strings.Contains(out, "it hung") {
		t.Errorf("for people, exit code %d:\n%s%s", code, out, stderr)
	}
	if stderr, code := busy.end(t); code != 0 {
		t.Errorf("a stress test at the same time: exit code %d\n%s", code, stderr)
	}
	w.mustBeClean(t)
}

// checkWorking checks what is said of the monitors that work on this machine.
func checkWorking(t *testing.T, all map[string]*confinev1.MonitorStatus) {
	t.Helper()
	ebpf, poll := all["ebpf"], all["poll"]
	if c := ebpf.GetSees(); !ebpf.GetWorks() || !c.GetExec() || !c.GetExecMapping() || !c.GetRecordedSyscalls() || !c.GetDeniedSyscalls() || !ebpf.GetDefault() {
		t.Errorf("ebpf: %v", ebpf)
	}
	if ebpf.GetBounds().GetMemory() != 512<<20 || !slices.Equal(ebpf.GetOptions(), []string{"ring-bytes"}) || !slices.Contains(ebpf.GetGets(), "CAP_BPF") {
		t.Errorf("the configuration of ebpf: %v", ebpf)
	}
	if !poll.GetWorks() || !poll.GetSees().GetExec() || !poll.GetSees().GetMissesShortLived() || len(poll.GetLimits()) == 0 {
		t.Errorf("poll: %v", poll)
	}
	if weak := all["weak"]; len(weak.GetNeeds()) == 0 || len(weak.GetGets()) != 0 {
		t.Errorf("one whose capabilities are withheld needs %q and gets %q", weak.GetNeeds(), weak.GetGets())
	}
	if !all["changed"].GetPinned() || ebpf.GetPinned() {
		t.Errorf("pinned: changed %v, ebpf %v", all["changed"].GetPinned(), ebpf.GetPinned())
	}
	if _, err := exec.LookPath("sysdig"); err == nil {
		m := all["sysdig"]
		_, driver := os.Stat("/dev/scap0")
		live := driver == nil
		if !m.GetWorks() || !m.GetSees().GetReplay() || m.GetSees().GetExec() != live || !strings.Contains(strings.Join(m.GetMechanisms(), " "), "sysdig 0.") {
			t.Errorf("sysdig: %v", m)
		}
		if !live && !strings.Contains(strings.Join(m.GetLimits(), " "), "no driver for this kernel") {
			t.Errorf("sysdig doesn't say that it lacks its driver: %q", m.GetLimits())
		}
	}
	if _, err := os.Stat("/usr/sbin/execsnoop"); err == nil {
		if m := all["execsnoop"]; !m.GetWorks() || !m.GetSees().GetExec() || !strings.Contains(strings.Join(m.GetMechanisms(), " "), "/usr/sbin/execsnoop") {
			t.Errorf("execsnoop: %v", m)
		}
	}
}

// TestMonitorPath: a node starts a program as root only where it is allowed
// there; on one's own machine one may name any.
func TestMonitorPath(t *testing.T) {
	needMachine(t)
	tools := t.TempDir()
	poll := build(t, tools, "../../examples/monitor-poll")
	other := filepath.Join(tools, "other")
	if err := os.Symlink(poll, other); err != nil {
		t.Fatal(err)
	}
	w := newWorldOf(t, "monitors: {mine: {path: "+poll+"}}\n", "nginx")
	for _, name := range []string{"mine", poll} {
		r, stderr, code := w.profile(t, "--node", "n1", "--monitor", name, "nginx")
		if r == nil || len(r.GetExecuted()) == 0 || r.GetMonitor() != name {
			t.Errorf("--monitor %s: exit code %d, executed %v, monitor %s\n%s", name, code, r.GetExecuted(), r.GetMonitor(), stderr)
		}
	}
	if report, stderr, _ := w.stress(t, "--monitor", poll, "--count", "1", "nginx"); report.GetMonitor() != poll {
		t.Errorf("stress with --monitor %s: %v\n%s", poll, report, stderr)
	}
	for _, verb := range []string{"profile", "stress"} {
		out, stderr, code := w.ctl(t, verb, "--node", "n1", "--monitor", other, "nginx")
		if code != 1 || out != "" || !strings.Contains(stderr, "only those are started: allow it in its agent's configuration") {
			t.Errorf("%s with a path that isn't allowed: exit code %d\n%s%s", verb, code, out, stderr)
		}
	}
	w.mustBeClean(t)
	// Without a daemon; the path may be relative.
	relative, err := filepath.Rel(mustGetwd(t), other)
	if err != nil {
		t.Fatal(err)
	}
	local := []string{"--standalone", "--containerd", w.containerd.socket, "--namespace", namespace, "--plugin-dir", bin(t, "plugins"), "--data-dir", filepath.Join(w.dir, "alone")}
	r, stderr, code := w.profile(t, append(local, "--monitor", relative, "nginx")...)
	if r == nil || len(r.GetExecuted()) == 0 || r.GetMonitor() != other || r.GetProof().GetStatus() != "proven" {
		t.Errorf("standalone: exit code %d, monitor %s, executed %v, proof %v\n%s", code, r.GetMonitor(), r.GetExecuted(), r.GetProof(), stderr)
	}
	out, stderr, _ := w.ctl(t, append([]string{"stress", "--monitor", other, "--count", "1", "nginx"}, local...)...)
	if !strings.Contains(out, "monitor "+other) {
		t.Errorf("standalone stress:\n%s%s", out, stderr)
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
