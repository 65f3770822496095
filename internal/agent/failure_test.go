package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// path is the environment of most test images.
var path = []string{"PATH=/bin"}

// never is a quiet time that no test waits for.
func never() *durationpb.Duration { return durationpb.New(time.Hour) }

// loadAll imports the images that tests of failures use.
func loadAll(t *testing.T, d *daemon) {
	t.Helper()
	sleeper := busyboxImage("docker.io/library/sleeper:latest", v1.Config{Env: path, Cmd: []string{"sleep", "1000"}})
	sleeper.load(t, d)
	missing := busyboxImage("docker.io/library/missing:latest", v1.Config{Env: path, Entrypoint: []string{"/nowhere/prog"}})
	missing.load(t, d)
	text := busyboxImage("docker.io/library/text:latest", v1.Config{Env: path, Entrypoint: []string{"/text"}})
	text.scripts = map[string]string{"text": "neither a script nor a program\n"}
	text.load(t, d)
	none := busyboxImage("docker.io/library/none:latest", v1.Config{Env: path})
	none.load(t, d)
	shellless := testImage{name: "docker.io/library/shellless:latest", files: map[string]string{"true": busybox}, config: v1.Config{Entrypoint: []string{"/true"}}}
	shellless.load(t, d)
}

// endsClean ends a run and checks that nothing of it is left.
func (a *runningAgent) endsClean(d *daemon, id string) {
	a.t.Helper()
	a.end(id)
	if left := a.runEnded().GetLeftovers(); len(left) > 0 {
		a.t.Errorf("leftovers: %v", left)
	}
	d.mustBeEmpty(a.t)
}

func TestRunsThatCannotStart(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	a := startAgent(t, d, "")
	for i, c := range []struct {
		spec  *confinev1.RunSpec
		code  codes.Code
		stage string
		text  string
	}{
		{&confinev1.RunSpec{Image: "127.0.0.1:1/no/such:image"}, codes.NotFound, "image", "registry cannot be reached"},
		{&confinev1.RunSpec{Image: "Not A Name"}, codes.InvalidArgument, "image", "is not valid"},
		{&confinev1.RunSpec{Image: "missing"}, codes.FailedPrecondition, "run", "/nowhere/prog"},
		{&confinev1.RunSpec{Image: "text"}, codes.FailedPrecondition, "run", "exec format error"},
		{&confinev1.RunSpec{Image: "none"}, codes.FailedPrecondition, "run", "no entrypoint or command"},
		{&confinev1.RunSpec{Image: "sleeper", User: "nobody-here"}, codes.FailedPrecondition, "run", "user nobody-here"},
		{&confinev1.RunSpec{Image: "sleeper", Mounts: []string{"/no/such/source:/data"}}, codes.InvalidArgument, "run", "does not exist"},
		{&confinev1.RunSpec{Image: "sleeper", Monitor: "nosuch"}, codes.FailedPrecondition, "image", `monitor "nosuch" is not installed`},
		{&confinev1.RunSpec{Image: "sleeper", Snapshotter: "nosuch"}, codes.InvalidArgument, "image", "nosuch"},
	} {
		id := fmt.Sprintf("r%d", i)
		a.start(id, c.spec)
		e := a.runError()
		if codes.Code(e.GetCode()) != c.code || e.GetStage() != c.stage || !strings.Contains(e.GetMessage(), c.text) {
			t.Errorf("%v: %v at %s: %s; want %v at %s with %q", c.spec, codes.Code(e.GetCode()), e.GetStage(), e.GetMessage(), c.code, c.stage, c.text)
		}
		if left := a.runEnded().GetLeftovers(); len(left) > 0 {
			t.Errorf("%v: leftovers %v", c.spec, left)
		}
		d.mustBeEmpty(t)
	}
}

func TestContainersThatEndByThemselves(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	held := busyboxImage("docker.io/library/held:latest", v1.Config{Env: path, Entrypoint: []string{"/run/held/start"}})
	held.scripts = map[string]string{"run/held/start": "#!/bin/sh\nexit 4\n"}
	held.load(t, d)
	a := startAgent(t, d, "")
	for i, c := range []struct {
		spec   *confinev1.RunSpec
		status int32
		output string
	}{
		{&confinev1.RunSpec{Image: "shellless"}, 0, ""},
		{&confinev1.RunSpec{Image: "sleeper", Args: []string{"/bin/sh", "-c", "echo out of luck >&2; exit 3"}}, 3, "out of luck"},
		{&confinev1.RunSpec{Image: "held"}, 4, ""},
		{&confinev1.RunSpec{Image: "sleeper", Args: []string{"/bin/sh", "-c", "kill -SEGV $$"}}, 0, ""},
		{&confinev1.RunSpec{Image: "sleeper", Args: []string{"/bin/sh", "-c", "/bin/sh -c 'kill -SEGV $$'; exit $?"}}, 128 + 11, ""},
	} {
		id := fmt.Sprintf("r%d", i)
		a.start(id, c.spec)
		run := a.observation().GetRun()
		if run.GetSettledBy() != "exited" || run.ExitCode == nil || run.GetExitCode() != c.status {
			t.Errorf("%v: settled by %q with status %d, want exited with %d", c.spec, run.GetSettledBy(), run.GetExitCode(), c.status)
		}
		if !strings.Contains(strings.Join(run.GetOutput(), "\n"), c.output) {
			t.Errorf("%v: output %q, want %q", c.spec, run.GetOutput(), c.output)
		}
		a.endsClean(d, id)
	}
}

// started waits until the container of a run has executed its program.
func (a *runningAgent) started() {
	a.t.Helper()
	a.next(func(m *confinev1.ConnectRequest) bool {
		return m.GetProgress().GetStage() == "settle" && m.GetProgress().GetCount() > 0
	})
}

func TestEndInTheMiddle(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{Image: "sleeper", Quiet: never()})
	a.started()
	a.endsClean(d, "r1")
	// At once, whatever it is doing.
	a.start("r2", &confinev1.RunSpec{Image: "sleeper", Quiet: never()})
	a.endsClean(d, "r2")
	// With the agent.
	a.start("r3", &confinev1.RunSpec{Image: "sleeper", Quiet: never()})
	a.started()
	a.stop()
	d.mustBeEmpty(t)
}

func TestStreamBreaks(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{Image: "sleeper", Quiet: quick()})
	a.stageReached("settle")
	a.breakStream()
	select {
	case h := <-a.connected:
		if !slices.Equal(h.GetRunIds(), []string{"r1"}) {
			t.Errorf("the agent came back with runs %v", h.GetRunIds())
		}
	case <-time.After(patience):
		t.Fatal("the agent does not come back")
	}
	if got := a.observation().GetRun().GetSettledBy(); got != "no port to wait for, quiet for 500ms" {
		t.Errorf("settled by %q", got)
	}
	a.endsClean(d, "r1")
}

// killMonitors kills the plugin processes of this test's agents.
func killMonitors(t *testing.T) {
	t.Helper()
	dir := pluginDir(t)
	found := false
	for _, p := range childrenOf(os.Getpid()) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p)); err == nil && filepath.Dir(exe) == dir {
			found = unix.Kill(p, unix.SIGKILL) == nil || found
		}
	}
	if !found {
		t.Fatal("no monitor runs")
	}
}

func childrenOf(pid int) []int {
	var all []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for field := range strings.FieldsSeq(string(b)) {
			var p int
			if _, err := fmt.Sscan(field, &p); err == nil {
				all = append(all, p)
			}
		}
	}
	return all
}

func TestMonitorDies(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	a := startAgent(t, d, "")
	// Once: the run begins anew.
	a.start("r1", &confinev1.RunSpec{Image: "sleeper", Quiet: quick()})
	a.started()
	killMonitors(t)
	if got := a.observation(); !slices.Contains(pathsOf(got), "/bin/busybox") {
		t.Errorf("files %v", pathsOf(got))
	}
	a.endsClean(d, "r1")
	// Twice: the run fails.
	a.start("r2", &confinev1.RunSpec{Image: "sleeper", Quiet: never()})
	a.started()
	killMonitors(t)
	a.next(func(m *confinev1.ConnectRequest) bool {
		return strings.Contains(m.GetProgress().GetText(), "once more")
	})
	a.started()
	killMonitors(t)
	if e := a.runError(); codes.Code(e.GetCode()) != codes.Aborted || !strings.Contains(e.GetMessage(), "monitor-died") {
		t.Errorf("error %v", e)
	}
	if left := a.runEnded().GetLeftovers(); len(left) > 0 {
		t.Errorf("leftovers: %v", left)
	}
	d.mustBeEmpty(t)
}

func TestContainerdDies(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{Image: "sleeper", Quiet: never()})
	a.started()
	d.kill(t)
	e := a.runError()
	if codes.Code(e.GetCode()) != codes.Unavailable || !strings.Contains(e.GetMessage(), "containerd") {
		t.Errorf("error %v", e)
	}
	if left := a.runEnded().GetLeftovers(); len(left) != 1 {
		t.Errorf("leftovers %v: want that of the run", left)
	}
	a.start("r2", &confinev1.RunSpec{Image: "sleeper"})
	if e := a.runError(); codes.Code(e.GetCode()) != codes.Unavailable {
		t.Errorf("error %v", e)
	}
	a.runEnded()
	d.start(t)
	d.emptyIn(t, patience)
}

// emptyIn waits until nothing of any run is left.
func (d *daemon) emptyIn(t *testing.T, limit time.Duration) {
	t.Helper()
	for end := time.Now().Add(limit); len(d.contents(t)) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			d.mustBeEmpty(t)
			return
		}
	}
}

// TestLeftoversOfACrash lets an agent find what another with its name and
// folder left: that agent still runs here, which makes no difference to what
// is found. A third agent's run stays.
func TestLeftoversOfACrash(t *testing.T) {
	d := startContainerd(t)
	loadAll(t, d)
	dir := t.TempDir()
	crashed := startAgent(t, d, dir)
	crashed.start("r1", &confinev1.RunSpec{Image: "sleeper", Quiet: never()})
	crashed.started()
	other := startAgent(t, d, "")
	other.start("r2", &confinev1.RunSpec{Image: "sleeper", Quiet: never()})
	other.started()
	startAgent(t, d, dir)
	gone := func() bool {
		return !slices.ContainsFunc(d.contents(t), func(s string) bool { return strings.HasSuffix(s, "confine-r1") })
	}
	for end := time.Now().Add(patience); !gone() && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if want := []string{"cgroup confine-r2", "container confine-r2", "lease confine-r2", "snapshot confine-r2", "task confine-r2"}; !slices.Equal(d.contents(t), want) {
		t.Errorf("containerd holds %v, want %v", d.contents(t), want)
	}
	other.endsClean(d, "r2")
}
