package agent_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc/codes"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// ctr runs a command of containerd's own client.
func (d *daemon) ctr(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ctr", append([]string{"--address", d.socket, "-n", namespace}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// pathsOf lists the files of an observation.
func pathsOf(o *confinev1.Observation) []string {
	var paths []string
	for _, f := range o.GetFiles() {
		paths = append(paths, f.GetPath())
	}
	return paths
}

func TestAttachWatchesAndLeavesTheContainerAlone(t *testing.T) {
	d := startContainerd(t)
	img := busyboxImage("docker.io/library/loop:latest", v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"/entry.sh"}})
	img.files["bin/late"] = busybox
	img.scripts = map[string]string{"entry.sh": "#!/bin/sh\nwhile true; do sleep 1; done\n"}
	img.load(t, d)
	d.ctr(t, "run", "-d", "docker.io/library/loop:latest", "theirs-1234567")
	defer d.ctr(t, "task", "rm", "-f", "theirs-1234567")
	a := startAgent(t, d, "")
	// Programs that start during the watch are seen beside those that ran
	// before.
	a.start("r1", &confinev1.RunSpec{
		ContainerId: "theirs-1", Quiet: quick(), IncludeExec: true,
		Workload: []string{"ctr", "--address", d.socket, "-n", namespace, "task", "exec", "--exec-id", "x", "theirs-1234567", "/bin/late", "true"},
	})
	o := a.observation()
	for _, want := range []string{"/bin/busybox", "/bin/late"} {
		if !slices.Contains(pathsOf(o), want) {
			t.Errorf("files %v, want %s", pathsOf(o), want)
		}
	}
	if got, want := o.GetRun().GetSettledBy(), "workload, quiet for 500ms"; got != want {
		t.Errorf("settled by %q, want %q", got, want)
	}
	if got := o.GetImage(); got.GetContainerId() != "theirs-1234567" || got.GetImage() != "docker.io/library/loop:latest" || got.GetDigest() == "" || !slices.Equal(got.GetArgs(), []string{"/entry.sh"}) {
		t.Errorf("image %v", got)
	}
	if !slices.ContainsFunc(o.GetIncomplete(), func(i *confinev1.Incomplete) bool { return i.GetKind() == "attached-late" }) {
		t.Error("the result doesn't say that the start was missed")
	}
	if !slices.Contains(o.GetRuntime().GetFloor(), "execve") {
		t.Errorf("floor %v", o.GetRuntime())
	}
	a.say("r1", &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Prove{Prove: &confinev1.ProveCommand{}}})
	proof := a.next(func(m *confinev1.ConnectRequest) bool { return m.GetProof() != nil }).GetProof()
	if proof.GetStatus() != "skipped" || !strings.Contains(proof.GetDetail(), "belongs to somebody else") {
		t.Errorf("proof %v", proof)
	}
	a.end("r1")
	if left := a.runEnded().GetLeftovers(); len(left) > 0 {
		t.Errorf("leftovers: %v", left)
	}
	if tasks := d.ctr(t, "task", "ls"); !strings.Contains(tasks, "RUNNING") {
		t.Errorf("the container doesn't run any more:\n%s", tasks)
	}
}

func TestAttachErrors(t *testing.T) {
	d := startContainerd(t)
	busyboxImage("docker.io/library/loop:latest", v1.Config{Env: []string{"PATH=/bin"}}).load(t, d)
	d.ctr(t, "container", "create", "docker.io/library/loop:latest", "idle-one", "/bin/sleep", "100")
	d.ctr(t, "container", "create", "docker.io/library/loop:latest", "idle-two", "/bin/sleep", "100")
	defer d.ctr(t, "container", "rm", "idle-one", "idle-two")
	a := startAgent(t, d, "")
	for id, want := range map[string]struct {
		container string
		code      codes.Code
		text      string
	}{
		"r1": {"nobody", codes.NotFound, "is not in namespace " + namespace},
		"r2": {"idle-one", codes.FailedPrecondition, "has not been started"},
		"r3": {"idle-t", codes.FailedPrecondition, "container idle-two has not"},
		"r4": {"idle-", codes.NotFound, "is not in namespace"},
	} {
		a.start(id, &confinev1.RunSpec{ContainerId: want.container})
		e := a.runError()
		if codes.Code(e.GetCode()) != want.code || !strings.Contains(e.GetMessage(), want.text) {
			t.Errorf("%s: %v %q, want %v with %q", want.container, codes.Code(e.GetCode()), e.GetMessage(), want.code, want.text)
		}
		if left := a.runEnded().GetLeftovers(); len(left) > 0 {
			t.Errorf("leftovers: %v", left)
		}
	}
}
