package system

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// TestStandalone makes a profile with server and agent in one process.
func TestStandalone(t *testing.T) {
	w := newMachine(t, "redis")
	out, stderr, code := w.ctl(t, "profile", "--standalone", "-o", "json", "--containerd", w.containerd.socket,
		"--plugin-dir", bin(t, "plugins"), "--data-dir", filepath.Join(w.dir, "data"), "--namespace", namespace,
		"--workload", "sh -ec "+quote(redisLoad), "redis")
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}
	r := new(confinev1.Result)
	if err := protojson.Unmarshal([]byte(out), r); err != nil {
		t.Fatal(err)
	}
	checkProven(t, r)
	checkAccuracy(t, r)
	w.mustBeClean(t)
}

// TestAttach profiles a container that somebody else started.
func TestAttach(t *testing.T) {
	w := newWorld(t, "redis")
	w.containerd.ctr(t, "run", "-d", "docker.io/library/redis:latest", "web-7")
	t.Cleanup(func() {
		w.containerd.ctr(t, "tasks", "rm", "--force", "web-7")
		w.containerd.ctr(t, "containers", "rm", "web-7")
		w.mustBeClean(t)
	})
	r, stderr, code := w.profile(t, "--node", "n1", "--container", "web-7",
		"--workload", "sh -c 'ip link set lo up; redis-benchmark -q -n 500 -t set,get; redis-cli BGSAVE; sleep 1'")
	if r == nil {
		t.Fatalf("exit code %d without a result:\n%s", code, stderr)
	}
	if code != 0 && code != 3 {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
	checkAccuracy(t, r)
	if code == 0 {
		checkProven(t, r)
	} else if len(r.GetIncomplete()) == 0 && r.GetProof().GetStatus() == "proven" {
		t.Error("exit code 3, and the result does not say why")
	}
	if !strings.Contains(w.containerd.ctr(t, "tasks", "ls"), "RUNNING") {
		t.Error("the container does not run any more")
	}
	left, err := w.containerd.contents(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left {
		if strings.Contains(l, "confine-") {
			t.Errorf("left behind: %s", l)
		}
	}
}

// TestPipe checks what other programs get: the profile alone, which the
// runtime accepts.
func TestPipe(t *testing.T) {
	w := newWorld(t, "busybox")
	out, stderr, code := w.ctl(t, "profile", "--node", "n1", "busybox", "--", "sh", "-c", "ls / >/dev/null; sleep 1")
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}
	var profile struct {
		DefaultAction string   `json:"defaultAction"`
		Architectures []string `json:"architectures"`
		Syscalls      []struct {
			Names  []string `json:"names"`
			Action string   `json:"action"`
		} `json:"syscalls"`
	}
	if err := json.Unmarshal([]byte(out), &profile); err != nil {
		t.Fatalf("standard output is no profile: %v\n%s", err, out)
	}
	if profile.DefaultAction != "SCMP_ACT_ERRNO" || len(profile.Architectures) == 0 || len(profile.Syscalls) == 0 {
		t.Errorf("unexpected profile: %+v", profile)
	}
	file := filepath.Join(w.dir, "profile.json")
	if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	got := w.containerd.ctr(t, "run", "--rm", "--seccomp", "--seccomp-profile", file, "docker.io/library/busybox:latest", "bound", "sh", "-c", "ls /")
	if !strings.Contains(got, "bin") {
		t.Errorf("ls under the profile prints %q", got)
	}
}

// TestDemo runs the demo as a user does.
func TestDemo(t *testing.T) {
	needMachine(t)
	script, err := filepath.Abs("../../scripts/demo")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), script)
	// Not the private containerd of somebody who plays with the demo.
	dir, err := os.MkdirTemp("", "confine-d-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd.Env = append(os.Environ(), "CONFINE_DEMO_DIR="+dir)
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo ends with %v:\n%s", err, out)
	}
	for _, want := range []string{"done and proven", "refused: Operation not permitted", "redis ended with status 0", "none left"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the demo does not show %q:\n%s", want, out)
		}
	}
}
