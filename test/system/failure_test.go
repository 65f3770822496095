package system

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// slow is a workload that leaves time to break something.
const slow = "sleep 20"

// mustSay checks that an error names what a user has to know.
func mustSay(t *testing.T, stderr string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(stderr, want) {
			t.Errorf("the error does not say %q:\n%s", want, stderr)
		}
	}
	if strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine ") {
		t.Errorf("the error shows a crash:\n%s", stderr)
	}
}

// TestMistakes makes the mistakes that users make.
func TestMistakes(t *testing.T) {
	w := newWorld(t, "busybox", "foreign")
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"unknown node", []string{"--node", "n7", "busybox"}, 1, []string{"n7", "n1"}},
		{"wrong image name", []string{"--node", "n1", "nonesuch.invalid/team/app:1"}, 1, []string{"nonesuch.invalid/team/app:1"}},
		{"no image name", []string{"--node", "n1", "Not/A/Name"}, 1, []string{"Not/A/Name"}},
		{"unknown container", []string{"--node", "n1", "--container", "web-7"}, 1, []string{"web-7"}},
		{"unknown monitor", []string{"--node", "n1", "--monitor", "crystal-ball", "busybox"}, 1, []string{"crystal-ball"}},
		{"unknown user", []string{"--node", "n1", "--user", "nobody-here", "busybox", "--", "sh", "-c", "true"}, 1, []string{"nobody-here"}},
		{"missing entrypoint", []string{"--node", "n1", "busybox", "--", "/no/such/program"}, 1, []string{"/no/such/program"}},
		{"image for another machine", []string{"--node", "n1", "confine/foreign"}, 1, []string{"is for linux/", "node runs linux/" + runtime.GOARCH, "confinectl analyze"}},
		{"missing mount", []string{"--node", "n1", "--mount", "/no/such/folder:/mnt", "busybox"}, 1, []string{"/no/such/folder"}},
		{"no image", []string{"--node", "n1"}, 2, []string{"IMAGE is missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, stderr, code := w.ctl(t, append([]string{"profile"}, c.args...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if out != "" {
				t.Errorf("standard output has: %s", out)
			}
			mustSay(t, stderr, c.says...)
			w.mustBeClean(t)
		})
	}
}

// TestContainersThatEnd runs containers that don't go on for ever.
func TestContainersThatEnd(t *testing.T) {
	w := newWorld(t, "busybox")
	t.Run("done", func(t *testing.T) {
		r, stderr, code := w.profile(t, "--node", "n1", "busybox", "--", "sh", "-c", "mkdir /tmp/x && ls / | cat && cp /bin/busybox /tmp/x")
		if r == nil || code != 0 {
			t.Fatalf("exit code %d:\n%s", code, stderr)
		}
		checkProven(t, r)
		checkAccuracy(t, r)
		if !strings.Contains(r.GetRun().GetSettledBy(), "exited") {
			t.Errorf("settled by %q", r.GetRun().GetSettledBy())
		}
		w.mustBeClean(t)
	})
	t.Run("fails at once", func(t *testing.T) {
		out, stderr, code := w.ctl(t, "profile", "--node", "n1", "busybox", "--", "sh", "-c", "echo the disk is on fire >&2; exit 3")
		if code == 0 {
			t.Errorf("exit code 0; standard output:\n%s", out)
		}
		mustSay(t, stderr, "status 3", "the disk is on fire")
		w.mustBeClean(t)
	})
	t.Run("crashes", func(t *testing.T) {
		_, stderr, code := w.ctl(t, "profile", "--node", "n1", "busybox", "--", "sh", "-c", "sh -c 'kill -SEGV $$'; exit $?")
		if code == 0 {
			t.Error("exit code 0")
		}
		mustSay(t, stderr, "status 139")
		w.mustBeClean(t)
	})
	t.Run("workload fails", func(t *testing.T) {
		_, stderr, code := w.ctl(t, "profile", "--node", "n1", "--workload", "sh -c 'echo no luck >&2; exit 4'", "busybox", "--", "sleep", "100")
		if code == 0 {
			t.Error("exit code 0")
		}
		mustSay(t, stderr, "no luck")
		w.mustBeClean(t)
	})
}

// running waits until the container of a run executes.
func running(t *testing.T, w *world, b *background) {
	t.Helper()
	until(t, 60*time.Second, "a container runs", func() bool {
		if b.ended() {
			t.Fatalf("confinectl ended early: %v\n%s", b.err, b.stderr)
		}
		return strings.Contains(w.containerd.ctr(t, "tasks", "ls"), "RUNNING")
	})
	// Past the start, into the workload.
	time.Sleep(time.Second)
}

func TestInterruptedByTheUser(t *testing.T) {
	w := newWorld(t, "busybox")
	b := w.begin(t, "profile", "--node", "n1", "--workload", slow, "busybox", "--", "sleep", "1000")
	running(t, w, b)
	if err := b.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	stderr, code := b.end(t)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	mustSay(t, stderr, "interrupted")
	w.mustBeClean(t)
	works(t, w)
}

// works checks that the machine is as good as new.
func works(t *testing.T, w *world) {
	t.Helper()
	r, stderr, code := w.profile(t, "--node", "n1", "busybox", "--", "sh", "-c", "ls /")
	if r == nil || code != 0 {
		t.Errorf("the next run ends with exit code %d:\n%s", code, stderr)
	}
	w.mustBeClean(t)
}

// monitors returns the monitor processes of the agent.
func monitors(t *testing.T, w *world) []int {
	return children(w.agent.pid(), bin(t, "plugins/confine-monitor-ebpf"))
}

// TestMonitorKilledOnce kills the monitor in the middle of a run: the run is
// made again, and the result is as good as any.
func TestMonitorKilledOnce(t *testing.T) {
	w := newWorld(t, "busybox")
	b := w.begin(t, "profile", "-o", "json", "--node", "n1", "--workload", "sleep 4", "busybox", "--", "sleep", "1000")
	running(t, w, b)
	pids := monitors(t, w)
	if len(pids) == 0 {
		t.Fatal("no monitor process below the agent")
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if stderr, code := b.end(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
	w.mustBeClean(t)
}

// TestMonitorKilledAlways kills it again and again: an error, no result.
func TestMonitorKilledAlways(t *testing.T) {
	w := newWorld(t, "busybox")
	b := w.begin(t, "profile", "--node", "n1", "--workload", slow, "busybox", "--", "sleep", "1000")
	for !b.ended() {
		if strings.Contains(w.containerd.ctr(t, "tasks", "ls"), "RUNNING") {
			for _, pid := range monitors(t, w) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(300 * time.Millisecond)
	}
	stderr, code := b.end(t)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if b.stdout.Len() > 0 {
		t.Errorf("standard output has:\n%s", b.stdout)
	}
	mustSay(t, stderr, "monitor")
	w.mustBeClean(t)
	works(t, w)
}

func TestContainerdKilled(t *testing.T) {
	w := newWorld(t, "busybox")
	b := w.begin(t, "profile", "--node", "n1", "--workload", slow, "busybox", "--", "sleep", "1000")
	running(t, w, b)
	w.containerd.process.kill()
	stderr, code := b.end(t)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	mustSay(t, stderr, "containerd")
	_, stderr, code = w.ctl(t, "profile", "--node", "n1", "busybox")
	if code != 1 {
		t.Errorf("without containerd: exit code %d, want 1", code)
	}
	mustSay(t, stderr, "containerd", w.containerd.socket)
	w.containerd.start(t)
	w.mustBeClean(t)
	works(t, w)
}

func TestAgentKilled(t *testing.T) {
	w := newWorld(t, "busybox")
	b := w.begin(t, "profile", "--node", "n1", "--workload", slow, "busybox", "--", "sleep", "1000")
	running(t, w, b)
	w.agent.kill()
	stderr, code := b.end(t)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	mustSay(t, stderr, "n1")
	if left, err := w.containerd.contents(t); err != nil || len(left) == 0 {
		t.Errorf("the killed agent left nothing to remove: %v, %v", left, err)
	}
	w.startAgent(t, "")
	w.mustBeClean(t)
	works(t, w)
}

// TestServerKilled checks that what was answered survives, and that nodes come
// back by themselves.
func TestServerKilled(t *testing.T) {
	w := newWorld(t, "busybox")
	first, stderr, code := w.profile(t, "--node", "n1", "busybox", "--", "sh", "-c", "ls /")
	if first == nil || code != 0 {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}
	b := w.begin(t, "profile", "--node", "n1", "--workload", slow, "busybox", "--", "sleep", "1000")
	running(t, w, b)
	w.server.kill()
	if stderr, code := b.end(t); code != 1 {
		t.Errorf("exit code %d, want 1:\n%s", code, stderr)
	}
	if err := os.Remove(w.server.log); err != nil {
		t.Fatal(err)
	}
	w.startServer(t)
	until(t, 30*time.Second, "the node is back", func() bool { return w.connected(t) })
	w.mustBeClean(t)
	out, stderr, code := w.ctl(t, "show", first.GetId(), "-o", "json")
	if code != 0 || !strings.Contains(out, first.GetDigest()) {
		t.Errorf("the result is gone: exit code %d\n%s", code, stderr)
	}
	second, stderr, code := w.profile(t, "--node", "n1", "busybox", "--", "sh", "-c", "ls /")
	if second == nil || code != 0 {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}
	if slices.ContainsFunc(second.GetObjects(), func(o *confinev1.Object) bool { return !o.GetCached() }) {
		t.Error("facts did not survive: an object was analysed again")
	}
}

// TestTokensServeOnce checks that a token that was used is worth nothing.
func TestTokensServeOnce(t *testing.T) {
	w := newMachine(t)
	w.startServer(t)
	out, _, _ := w.ctl(t, "token", "create")
	join := func(node string) *process {
		data := filepath.Join(w.dir, node)
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		p := start(t, data, "join", nil, bin(t, "confine-agent"), "join", "--server", w.address,
			"--token", strings.TrimSpace(out), "--node", node, "--data", data, "--config", filepath.Join(data, "agent.yaml"))
		<-p.done
		return p
	}
	if p := join("n1"); p.err != nil {
		t.Fatalf("join: %v\n%s", p.err, p.tail())
	}
	p := join("n2")
	if p.err == nil {
		t.Error("a second node joined with the same token")
	}
	mustSay(t, p.tail(), "token")
	config := filepath.Join(w.dir, "n1", "agent.yaml")
	agent := start(t, w.dir, "confine-agent", nil, bin(t, "confine-agent"), "--config", config,
		"--containerd", w.containerd.socket, "--plugins", bin(t, "plugins"))
	until(t, 20*time.Second, "the node that joined is connected", func() bool {
		if agent.ended() {
			t.Fatalf("confine-agent ended: %v", agent.err)
		}
		return w.connected(t)
	})
}
