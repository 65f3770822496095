package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// stress runs 'confinectl stress --node n1 -o json'.
func (w *world) stress(t *testing.T, args ...string) (report *confinev1.StressReport, stderr string, code int) {
	t.Helper()
	out, stderr, code := w.ctl(t, append([]string{"stress", "--node", "n1", "-o", "json"}, args...)...)
	if out == "" {
		return nil, stderr, code
	}
	report = new(confinev1.StressReport)
	if err := protojson.Unmarshal([]byte(out), report); err != nil {
		t.Fatalf("read report: %v\n%s", err, out)
	}
	return report, stderr, code
}

// passes checks a report without fault.
func passes(t *testing.T, r *confinev1.StressReport, stderr string, code int, rounds int) {
	t.Helper()
	if code != 0 || !r.GetPassed() || len(r.GetRounds()) != rounds {
		t.Fatalf("exit code %d, passed %v, %d rounds, want 0, true and %d\n%s\n%v", code, r.GetPassed(), len(r.GetRounds()), rounds, stderr, r)
	}
	if r.GetLost() > 0 || r.GetDiffering() > 0 || r.GetFailed() > 0 || r.GetMixed() > 0 || len(r.GetLeftovers()) > 0 {
		t.Errorf("passed with faults: %v", r)
	}
}

func TestStress(t *testing.T) {
	w := newWorld(t, "nginx", "goserver", "memcached", "busybox")
	defer w.mustBeClean(t)
	t.Run("rounds agree", func(t *testing.T) {
		r, stderr, code := w.stress(t, "--count", "3", "nginx")
		passes(t, r, stderr, code, 3)
		if len(r.GetExecuted()) != 1 || !strings.HasSuffix(r.GetExecuted()[0], "/nginx") || len(r.GetMapped()) < 3 {
			t.Errorf("executed %v, mapped %v", r.GetExecuted(), r.GetMapped())
		}
	})
	t.Run("scripts count", func(t *testing.T) {
		r, stderr, code := w.stress(t, "--count", "2", "memcached")
		passes(t, r, stderr, code, 2)
		if len(r.GetExecuted()) < 3 {
			t.Errorf("executed %v, want a script, its interpreter and the server", r.GetExecuted())
		}
	})
	t.Run("many at once with storms, without a shell in the image", func(t *testing.T) {
		r, stderr, code := w.stress(t, "--count", "4", "--parallel", "2", "--storm", "500", "confine/goserver")
		passes(t, r, stderr, code, 4)
		c := r.GetStorms()
		if c.GetMade() < 4*100 || c.GetSeen() != c.GetMade() || c.GetNodeMade() == 0 {
			t.Errorf("storms %v", c)
		}
	})
	t.Run("marks", func(t *testing.T) {
		r, stderr, code := w.stress(t, "--count", "3", "--parallel", "3", "confine/goserver")
		passes(t, r, stderr, code, 3)
		if r.GetStorms().GetMade() != 3 || r.GetStorms().GetSeen() != 3 {
			t.Errorf("marks %v, want one of each container", r.GetStorms())
		}
	})
	t.Run("for people", func(t *testing.T) {
		out, _, code := w.ctl(t, "stress", "--count", "2", "nginx")
		if code != 0 || !strings.Contains(out, "passed: all rounds agree") || !strings.Contains(out, "1 binary") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})
	t.Run("unknown image", func(t *testing.T) {
		r, stderr, code := w.stress(t, "--count", "2", "127.0.0.1:1/no/such:image")
		if code != 1 || r != nil || !strings.Contains(stderr, "registry cannot be reached") {
			t.Errorf("exit code %d, report %v\n%s", code, r, stderr)
		}
	})
	t.Run("a monitor that can't work here", func(t *testing.T) {
		r, stderr, code := w.stress(t, "-q", "--count", "50", "--monitor", "sysdig", "nginx")
		if code == 0 {
			t.Skip("sysdig has a driver here")
		}
		if code != 1 || r != nil || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "sysdig") || strings.Contains(stderr, "no round succeeds") {
			t.Errorf("exit code %d, report %v, want one sentence:\n%s", code, r, stderr)
		}
	})
	t.Run("no round succeeds", func(t *testing.T) {
		r, stderr, code := w.stress(t, "--count", "50", "busybox", "--", "/nowhere")
		if code != 1 || r != nil || !strings.Contains(stderr, "no round succeeds") {
			t.Errorf("exit code %d, report %v\n%s", code, r, stderr)
		}
	})
}

// A monitor whose buffer is too small loses events: the storm finds out how
// many, which is no less than what the monitor admits.
func TestStressFindsLosses(t *testing.T) {
	w := newMachine(t, "goserver")
	plugins := filepath.Join(w.dir, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("#!/bin/sh\nCONFINE_OPTION_RING_BYTES=8192 exec %s\n", bin(t, "plugins/confine-monitor-ebpf"))
	if err := os.WriteFile(filepath.Join(plugins, "confine-monitor-lossy"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	out, stderr, code := w.ctl(t, "stress", "--standalone", "--containerd", w.containerd.socket, "--namespace", namespace,
		"--plugin-dir", plugins, "--data-dir", filepath.Join(w.dir, "alone"),
		"-o", "json", "--monitor", "lossy", "--count", "2", "--storm", "max", "confine/goserver")
	r := new(confinev1.StressReport)
	if err := protojson.Unmarshal([]byte(out), r); err != nil {
		t.Fatalf("read report: %v\n%s%s", err, out, stderr)
	}
	if code != 3 || r.GetPassed() || r.GetLost() == 0 || r.GetStorms().GetMissed() == 0 {
		t.Errorf("exit code %d, %d lost, %d missed: want 3 and losses", code, r.GetLost(), r.GetStorms().GetMissed())
	}
	if r.GetLost() < r.GetStorms().GetMissed() {
		t.Errorf("the monitor admits %d losses and missed %d executions", r.GetLost(), r.GetStorms().GetMissed())
	}
	if left, err := w.containerd.contents(t); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Ctrl-C in the middle of a storm leaves nothing behind, on the node either.
func TestStressInterrupted(t *testing.T) {
	w := newWorld(t, "goserver")
	b := w.begin(t, "stress", "--node", "n1", "--count", "100", "--parallel", "3", "--storm", "100", "--storm-time", "60s", "confine/goserver")
	until(t, 60*time.Second, "a storm rages on the node", func() bool {
		return b.ended() || len(stormProcesses(w.dir)) > 0
	})
	if b.ended() {
		t.Fatalf("it ended by itself: %s", b.stderr)
	}
	if err := unix.Kill(b.cmd.Process.Pid, unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if stderr, code := b.end(t); code != 1 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	w.mustBeClean(t)
	until(t, cleanTime, "no storm is left on the node", func() bool { return len(stormProcesses(w.dir)) == 0 })
}

// stormProcesses lists the processes of storms whose files are below a folder.
func stormProcesses(dir string) []string {
	var found []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		if b, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(b), dir+"/") && strings.Contains(string(b), "/storm\x00r\x00") {
			found = append(found, file)
		}
	}
	return found
}
