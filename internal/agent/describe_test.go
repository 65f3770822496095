package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/confinehq/confine/internal/agent"
	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// badMonitor builds the monitor that breaks the contract as its option says.
func badMonitor(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bad")
	if out, err := exec.Command("go", "build", "-o", path, "../../pkg/monitor/testdata/badmonitor").CombinedOutput(); err != nil {
		t.Fatalf("build the bad monitor: %v\n%s", err, out)
	}
	return path
}

// describe asks for the monitors, by name.
func (s *fakeServer) describe(request string) map[string]*confinev1.MonitorStatus {
	s.t.Helper()
	s.say("d-"+request, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_DescribeMonitors{
		DescribeMonitors: &confinev1.DescribeMonitors{RequestId: request},
	}})
	return s.described(request)
}

func (s *fakeServer) described(request string) map[string]*confinev1.MonitorStatus {
	s.t.Helper()
	m := s.next(func(m *confinev1.ConnectRequest) bool { return m.GetMonitorsReply().GetRequestId() == request })
	if m.GetRunId() != "d-"+request || m.GetMonitorsReply().GetProblem() != "" {
		s.t.Errorf("run %q, problem %q", m.GetRunId(), m.GetMonitorsReply().GetProblem())
	}
	all := map[string]*confinev1.MonitorStatus{}
	for _, st := range m.GetMonitorsReply().GetMonitors() {
		all[st.GetName()] = st
	}
	return all
}

// Of monitors that don't work each says why and what to do, and none keeps
// another from being described.
func TestDescribeMonitors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("monitors are started as root")
	}
	bad, dir := badMonitor(t), t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(pluginDir(t))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "confine-monitor-plain"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"hangs when described":   "it hung (no answer to describe within 3s) and was killed when it was asked",
		"crashes when described": "it ended unexpectedly when it was asked what it can see; see the agent's log",
		"can't work":             "this kernel is too old: install a newer one",
		"sees nothing":           "sees no executions",
		"silent":                 "it hung: no handshake within 3s, and was killed",
		"garbage":                "it isn't a monitor",
		"ends":                   "its log says more",
		"newer":                  "the agent is too old: update confine-agent",
		"older":                  "the monitor is too old: update it",
		"says too much":          "",
		"gone":                   "no such file or directory: install it there, or correct its path",
		"changed":                "is pinned",
		"nameless":               "holds no such monitor",
		"plain":                  "not executable: chmod +x",
		"ebpf":                   "",
		"poll":                   "",
	}
	none := []string{}
	monitors := map[string]agent.MonitorConfig{
		"nameless": {},
		"gone":     {Path: "/no/such/monitor"},
		"changed":  {Path: bad, SHA256: strings.Repeat("0", 64)},
		"poll":     {Capabilities: none, Limits: monitor.Limits{Memory: 300 << 20}, Options: map[string]string{"a": "secret"}},
	}
	for name := range want {
		if _, ok := monitors[name]; !ok && name != "ebpf" && name != "plain" {
			monitors[name] = agent.MonitorConfig{Path: bad, Options: map[string]string{"how": name}, AnswerTime: 3 * time.Second}
		}
	}
	a := startAgentOf(t, &daemon{socket: "/no/containerd"}, func(c *config) { c.PluginDir, c.Monitors = dir, monitors })
	if !slices.Contains(a.hello.GetCommands(), "describe_monitors") {
		t.Errorf("the agent knows %q", a.hello.GetCommands())
	}
	all := a.describe("q1")
	for name, problem := range want {
		st := all[name]
		if st == nil || st.GetWorks() != (problem == "") || !strings.Contains(st.GetProblem(), problem) || problem == "" && st.GetProblem() != "" {
			t.Errorf("%s: works %v, %q, want %q", name, st.GetWorks(), st.GetProblem(), problem)
		}
		if strings.ContainsRune(st.GetProblem(), '\n') || strings.Contains(st.GetProblem(), "start monitor") {
			t.Errorf("%s: %q isn't a sentence for people", name, st.GetProblem())
		}
	}
	if len(all) != len(want) {
		t.Errorf("%d monitors, want %d", len(all), len(want))
	}
	if n := proto.Size(all["says too much"]); n > 64<<10 {
		t.Errorf("one that says too much takes %d bytes", n)
	}
	checkStatus(t, all["ebpf"], all["poll"])
	if left := running(t, bad, filepath.Join(dir, "confine-monitor-ebpf")); len(left) > 0 {
		t.Errorf("%v still run", left)
	}
}

// checkStatus checks what is said of monitors that work.
func checkStatus(t *testing.T, ebpf, poll *confinev1.MonitorStatus) {
	t.Helper()
	c := ebpf.GetSees()
	if !c.GetExec() || !c.GetExecMapping() || !c.GetRecordedSyscalls() || !c.GetDeniedSyscalls() || c.GetReplay() {
		t.Errorf("ebpf sees %v", c)
	}
	if !ebpf.GetDefault() || ebpf.GetPinned() || len(ebpf.GetSha256()) != 64 || ebpf.GetContract() != 2 || ebpf.GetVersion() == "" || len(ebpf.GetMechanisms()) == 0 {
		t.Errorf("ebpf: %v", ebpf)
	}
	if !slices.Equal(ebpf.GetNeeds(), ebpf.GetGets()) || !slices.Contains(ebpf.GetNeeds(), "CAP_BPF") {
		t.Errorf("ebpf needs %q and gets %q", ebpf.GetNeeds(), ebpf.GetGets())
	}
	if len(poll.GetNeeds()) != 2 || len(poll.GetGets()) != 0 || poll.GetBounds().GetMemory() != 300<<20 || poll.GetBounds().GetFiles() == 0 {
		t.Errorf("poll, of which the configuration takes all: %v", poll)
	}
	if !slices.Equal(poll.GetOptions(), []string{"a"}) || strings.Contains(poll.String(), "secret") {
		t.Errorf("options of poll: %v", poll)
	}
}

// running lists the processes of programs, once they had time to end.
func running(t *testing.T, programs ...string) []string {
	t.Helper()
	for end := time.Now().Add(patience / 4); ; time.Sleep(50 * time.Millisecond) {
		var found []string
		exes, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			t.Fatal(err)
		}
		for _, exe := range exes {
			if target, err := os.Readlink(exe); err == nil && slices.Contains(programs, target) {
				found = append(found, exe)
			}
		}
		if len(found) == 0 || time.Now().After(end) {
			return found
		}
	}
}

// The stream breaks while the monitors are asked: the answer comes through the
// next one.
func TestDescribeMonitorsThroughABreak(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("monitors are started as root")
	}
	a := startAgentOf(t, &daemon{socket: "/no/containerd"}, func(c *config) {
		c.Monitors = map[string]agent.MonitorConfig{
			"slow": {Path: badMonitor(t), Options: map[string]string{"how": "hangs when described"}, AnswerTime: 3 * time.Second},
		}
	})
	a.say("d-q1", &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_DescribeMonitors{
		DescribeMonitors: &confinev1.DescribeMonitors{RequestId: "q1"},
	}})
	a.breakStream()
	select {
	case <-a.connected:
	case <-time.After(patience):
		t.Fatal("the agent does not come back")
	}
	if all := a.described("q1"); !all["ebpf"].GetWorks() || all["slow"].GetWorks() {
		t.Errorf("%v", all)
	}
}

// A run whose monitor hangs keeps no other from its monitor.
func TestHangingMonitorHoldsNobodyUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("monitors are started as root")
	}
	a := startAgentOf(t, &daemon{socket: "/no/containerd"}, func(c *config) {
		c.Monitors = map[string]agent.MonitorConfig{
			"slow": {Path: badMonitor(t), Options: map[string]string{"how": "hangs when described"}, AnswerTime: 15 * time.Second},
		}
	})
	failed := func(m *confinev1.ConnectRequest) bool { return m.GetRunError() != nil }
	a.start("r1", &confinev1.RunSpec{Image: "web", Monitor: "slow"})
	time.Sleep(time.Second) // it is being started
	a.start("r2", &confinev1.RunSpec{Image: "web", Monitor: "poll"})
	// The second gets as far as one can without containerd, before the first.
	if m := a.next(failed); m.GetRunId() != "r2" || !strings.Contains(m.GetRunError().GetMessage(), "containerd") {
		t.Errorf("run %s failed first: %s", m.GetRunId(), m.GetRunError().GetMessage())
	}
	if m := a.next(failed); m.GetRunId() != "r1" || !strings.Contains(m.GetRunError().GetMessage(), "it hung (no answer to describe within 15s)") {
		t.Errorf("run %s failed: %s", m.GetRunId(), m.GetRunError().GetMessage())
	}
}
