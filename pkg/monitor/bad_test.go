package monitor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/procfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// hangs is how long a plugin of these tests may take for an answer: long
// enough for one that works on a busy machine.
const hangs = 5 * time.Second

// patience bounds every wait of a test.
const patience = time.Minute

var bad struct{ path string }

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "monitor-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bad.path = filepath.Join(dir, "confine-monitor-bad")
	if out, err := exec.Command("go", "build", "-o", bad.path, "./testdata/badmonitor").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// startBad starts the plugin that breaks the contract in a way.
func startBad(t *testing.T, how string, change func(*monitor.HostConfig)) (*monitor.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cfg := monitor.HostConfig{Path: bad.path, Options: map[string]string{"how": how}, AnswerTime: hangs}
	if change != nil {
		change(&cfg)
	}
	c, err := monitor.Start(ctx, cfg)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

// Those that don't come to their service: each in a sentence that says what to
// do, and without a process left.
func TestBadStarts(t *testing.T) {
	for how, want := range map[string]string{
		"garbage":         "it isn't a monitor: it printed",
		"endless garbage": "",
		"silent":          "it hung: no handshake",
		"ends":            "its log says more",
		"newer":           "it speaks version 9 of the monitor contract, the agent 1 to 2; the agent is too old: update confine-agent",
		"older":           "it speaks version 0 of the monitor contract, the agent 1 to 2; the monitor is too old: update it",
	} {
		t.Run(how, func(t *testing.T) {
			_, err := startBad(t, how, nil)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "start monitor bad: ") {
				t.Errorf("%v, want %q", err, want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("what the plugin printed reaches the terminal: %q", err)
			}
			if left := processes(t); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

// A program that isn't made with this package may do anything when it is asked
// what it needs.
func TestSilentAboutNeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "confine-monitor-silent")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := monitor.Start(t.Context(), monitor.HostConfig{Path: path, AnswerTime: time.Second})
	if err == nil || !strings.Contains(err.Error(), "it hung: it did not say within 1s what it needs, and was killed; install") {
		t.Errorf("%v", err)
	}
}

// What is in the folder and can't be started is found, so that starting it says
// why.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"confine-monitor-a": 0o755, "confine-monitor-plain": 0o644, "confine-monitor-": 0o755, "other": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "confine-monitor-empty"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "confine-monitor-folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "confine-monitor-link")); err != nil {
		t.Fatal(err)
	}
	found, err := monitor.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range found {
		names = append(names, p.Name)
		if _, err := monitor.Start(t.Context(), monitor.HostConfig{Path: p.Path}); err == nil {
			t.Errorf("%s starts", p.Name)
		} else if says := map[string]string{"plain": "is not executable: chmod +x", "empty": "is empty"}[p.Name]; !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	if !slices.Equal(names, []string{"a", "empty", "link", "plain"}) {
		t.Errorf("found %q", names)
	}
	if found, err := monitor.Find(filepath.Join(dir, "none")); err != nil || len(found) > 0 {
		t.Errorf("no folder: %v, %v", found, err)
	}
}

// waiting is a backend whose tool doesn't answer.
type waiting struct{ monitor.Monitor }

func (waiting) Describe(ctx context.Context) (*monitor.Description, error) {
	<-ctx.Done()
	return nil, errors.New("the tool does not answer")
}

// A backend whose own time is over can still say why: the end of its context
// comes before its host loses patience.
func TestDescribeInTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), hangs)
	defer cancel()
	_, err := monitor.NewServer(waiting{}).Describe(ctx, &confinev1.DescribeRequest{})
	if err == nil || !strings.Contains(err.Error(), "the tool does not answer") || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}

// processes lists those that run the plugin.
func processes(t *testing.T) []string {
	t.Helper()
	var out []string
	for end := time.Now().Add(patience / 4); ; time.Sleep(10 * time.Millisecond) {
		out = nil
		all, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if exe, err := os.Readlink(p); err == nil && exe == bad.path {
				out = append(out, p)
			}
		}
		if len(out) == 0 || time.Now().After(end) {
			return out
		}
	}
}

func TestPinned(t *testing.T) {
	_, err := startBad(t, "", func(c *monitor.HostConfig) { c.SHA256 = strings.Repeat("0", 64) })
	if err == nil || !strings.Contains(err.Error(), "is pinned") {
		t.Errorf("another checksum: %v", err)
	}
	_, err = startBad(t, "", func(c *monitor.HostConfig) { c.SHA256 = "123" })
	if err == nil || !strings.Contains(err.Error(), "is no SHA-256") {
		t.Errorf("no checksum: %v", err)
	}
	c, err := startBad(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startBad(t, "", func(cfg *monitor.HostConfig) { cfg.SHA256 = strings.ToUpper(c.SHA256()) }); err != nil {
		t.Errorf("the right checksum: %v", err)
	}
}

func TestHangs(t *testing.T) {
	t.Run("describe", func(t *testing.T) {
		c, err := startBad(t, "hangs when described", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Describe(t.Context())
		killed(t, c, err)
	})
	t.Run("watch", func(t *testing.T) {
		c, err := startBad(t, "hangs when it watches", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Watch(t.Context(), &confinev1.Scope{Pid: 1})
		killed(t, c, err)
	})
	t.Run("stop", func(t *testing.T) {
		c, w := watchBad(t, "hangs at the end", &confinev1.Scope{Pid: 1})
		_, err := w.Stop(t.Context())
		killed(t, c, err)
	})
	t.Run("stopped process", func(t *testing.T) {
		c, w := watchBad(t, "", &confinev1.Scope{Pid: 1})
		if err := unix.Kill(-c.PID(), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// The signal takes effect when one of its threads runs the next time; the
		// others go on until then.
		for end := time.Now().Add(patience); procfs.Stat(int32(c.PID()))[0] != "T" && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		_, err := w.Stop(t.Context())
		killed(t, c, err)
	})
}

// killed checks that a plugin was ended because it hung.
func killed(t *testing.T, c *monitor.Client, err error) {
	t.Helper()
	if !errors.Is(err, monitor.ErrEnded) || !strings.Contains(err.Error(), "it hung (no answer to") {
		t.Errorf("%v, want that it hung", err)
	}
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Error("it still runs")
	}
}

// watchBad begins a watch whose events are read and dropped.
func watchBad(t *testing.T, how string, scope *confinev1.Scope) (*monitor.Client, *monitor.Watch) {
	t.Helper()
	c, err := startBad(t, how, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(context.WithoutCancel(t.Context()), scope)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Cancel)
	go func() {
		for range w.Events() {
		}
	}()
	return c, w
}

// What a plugin says against the contract, or can't be true, is found and said.
func TestFaults(t *testing.T) {
	group := ownGroup(t)
	for how, want := range map[string]string{
		"counts too few":  "it counts fewer events than it sent",
		"counts too many": "it counts more events than it sent",
		"goes down":       "its count of events went down",
		"losses go down":  "its count of lost events went down",
		"forgets losses":  "its count of lost events went down",
		"huge path":       "it sent an event of absurd size",
		"no process":      "it told of a process without a number",
		"no event":        "it sent a message that isn't an event",
		"nested batch":    "it sent a message that isn't an event",
		"foreign":         "it told of a process outside of what it was to watch",
		"absurd losses":   "it told of more losses than there can be",
		"":                "",
	} {
		t.Run(how, func(t *testing.T) {
			if how == "foreign" && group == 0 {
				t.Skip("no cgroup v2 hierarchy is mounted")
			}
			scope := &confinev1.Scope{Pid: 1 << 22, MountNamespace: 1, PidNamespace: 1, CgroupId: group}
			_, w := watchBad(t, how, scope)
			settled(t, w)
			if strings.Contains(how, "down") {
				if _, err := w.Snapshot(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			snap, err := w.Stop(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want == "" {
				if len(w.Faults()) > 0 || snap.GetLost() > 0 {
					t.Errorf("faults %q and %d losses of one that does nothing wrong", w.Faults(), snap.GetLost())
				}
				return
			}
			if !slices.Contains(w.Faults(), want) {
				t.Errorf("faults %q, want %q", w.Faults(), want)
			}
			if how == "huge path" && snap.GetLost() != 1 {
				t.Errorf("%d lost, want the event that can't be believed", snap.GetLost())
			}
		})
	}
}

// sentFirst is how many events a bad plugin sends before it does what it is
// there for.
const sentFirst = 10

// settled waits until these and what may follow at once have been taken.
func settled(t *testing.T, w *monitor.Watch) {
	t.Helper()
	for end := time.Now().Add(patience); w.Seen() < sentFirst; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d events have come, want %d", w.Seen(), sentFirst)
		}
	}
	time.Sleep(200 * time.Millisecond)
}

// ownGroup makes a cgroup, 0 where there is no hierarchy of version 2.
func ownGroup(t *testing.T) uint64 {
	t.Helper()
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 3 || fields[2] != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(fields[1], "confine-monitor-test-")
		if err != nil {
			return 0
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	return 0
}

// One that ends a watch in its middle fails it, and says so.
func TestBadEnds(t *testing.T) {
	for how, want := range map[string]string{
		"crashes":      "ended unexpectedly",
		"stops":        "stopped before it was asked to",
		"huge message": "larger than max",
	} {
		t.Run(how, func(t *testing.T) {
			_, w := watchBad(t, how, &confinev1.Scope{Pid: 1})
			select {
			case <-w.Done():
			case <-time.After(patience):
				t.Fatal("the watch goes on")
			}
			if err := w.Err(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// A flood neither fills the host's memory nor keeps a watch from ending.
func TestFlood(t *testing.T) {
	_, w := watchBad(t, "floods", &confinev1.Scope{Pid: 1})
	settled(t, w)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(w.Faults(), "it counts fewer events than it sent") {
		t.Errorf("faults %q", w.Faults())
	}
}

// A plugin runs with what it states to need, and nothing of its host.
func TestLeastPrivilege(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has privileges to take")
	}
	t.Setenv("A_SECRET", "of the host")
	for _, c := range []struct {
		allowed []string
		mask    string
	}{
		{nil, "0000000000080000"}, // CAP_SYS_PTRACE alone
		{[]string{}, "0000000000000000"},
		{[]string{"CAP_SYS_ADMIN"}, "0000000000000000"}, // it doesn't ask for it
		{[]string{"sys_ptrace", "bpf"}, "0000000000080000"},
	} {
		client, err := startBad(t, "", func(cfg *monitor.HostConfig) {
			cfg.Capabilities = c.allowed
			cfg.Limits = monitor.Limits{Memory: 300 << 20, Files: 99}
		})
		if err != nil {
			t.Fatal(err)
		}
		d, err := client.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		status := d.GetVersion()
		for _, line := range []string{
			"CapPrm:\t" + c.mask, "CapEff:\t" + c.mask, "CapBnd:\t" + c.mask,
			"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1",
		} {
			if !strings.Contains(status, line) {
				t.Errorf("with %q allowed, %q isn't in its status:\n%s", c.allowed, line, status)
			}
		}
		if strings.Contains(status, "A_SECRET") {
			t.Error("it got the host's environment")
		}
		for _, name := range []string{"Max open files             99 ", "Max data size              314572800 ", "Max core file size         0 "} {
			if !strings.Contains(strings.Join(strings.Fields(status), " "), strings.Join(strings.Fields(name), " ")) {
				t.Errorf("%q isn't among its limits:\n%s", name, status)
			}
		}
	}
}
