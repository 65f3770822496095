package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/protobuf/types/known/structpb"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// webImage serves a folder that its script makes.
func webImage() testImage {
	img := busyboxImage("docker.io/library/web:latest", v1.Config{
		Entrypoint: []string{"/entry.sh"}, Env: path,
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	})
	img.scripts = map[string]string{"entry.sh": "#!/bin/sh\nls / >/dev/null\nmkdir -p /tmp/www\nexec httpd -f -p 8080 -h /tmp/www\n"}
	return img
}

// profileOf allows what a run was recorded doing and the runtime's floor,
// except some calls.
func profileOf(t *testing.T, o *confinev1.Observation, except ...string) *structpb.Struct {
	t.Helper()
	var names []any
	add := func(list []string) {
		for _, n := range list {
			if !slices.Contains(except, n) && !slices.Contains(names, any(n)) {
				names = append(names, n)
			}
		}
	}
	add(o.GetRuntime().GetFloor())
	for _, rec := range o.GetRun().GetRecorded() {
		if rec.GetPath() != "" {
			add(rec.GetSyscalls())
		}
	}
	profile, err := structpb.NewStruct(map[string]any{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": []any{"SCMP_ARCH_X86_64"},
		"syscalls": []any{map[string]any{"names": names, "action": "SCMP_ACT_ALLOW"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return profile
}

// prove asks for a proof, twice as a server does that has lost its stream.
func (s *fakeServer) prove(run string, profile *structpb.Struct) *confinev1.Proof {
	s.t.Helper()
	for range 2 {
		s.say(run, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_Prove{Prove: &confinev1.ProveCommand{Profile: profile}}})
	}
	return s.next(func(m *confinev1.ConnectRequest) bool { return m.GetProof() != nil }).GetProof()
}

// noSecondProof ends a run and checks that nothing was proven twice.
func (s *fakeServer) noSecondProof(run string) {
	s.t.Helper()
	s.end(run)
	s.next(func(m *confinev1.ConnectRequest) bool {
		if m.GetProof() != nil {
			s.t.Error("the run was proven twice")
		}
		return m.GetRunEnded() != nil
	})
}

func TestProof(t *testing.T) {
	d := startContainerd(t)
	webImage().load(t, d)
	a := startAgent(t, d, "")
	for _, c := range []struct {
		name    string
		spec    *confinev1.RunSpec
		without []string
		status  string
		// runtime is true when it is the runtime that is refused a call.
		runtime bool
	}{
		{"holds", &confinev1.RunSpec{}, nil, "proven", false},
		{"holds without no_new_privs", &confinev1.RunSpec{AllowNewPrivs: true}, nil, "proven", false},
		{"lacks a call", &confinev1.RunSpec{}, []string{"mkdir"}, "denied", false},
		{"lacks a call that its monitor could not see", &confinev1.RunSpec{Monitor: "poll"}, []string{"mkdir"}, "denied", false},
		{"lacks the last call of the runtime", &confinev1.RunSpec{}, []string{"execve"}, "denied", true},
	} {
		id := "p-" + strings.Map(func(r rune) rune {
			if r < 'a' || r > 'z' {
				return '-'
			}
			return r
		}, c.name)
		c.spec.Image, c.spec.Quiet = "web", quick()
		a.start(id, c.spec)
		o := a.observation()
		if c.spec.Monitor == "poll" {
			o = seenBy(t, a, id+"2")
		}
		proof := a.prove(id, profileOf(t, o, c.without...))
		if proof.GetStatus() != c.status {
			t.Errorf("%s: %s: %s, want %s; denied %v", c.name, proof.GetStatus(), proof.GetDetail(), c.status, proof.GetDenied())
		}
		var got []string
		process := "/bin/busybox"
		if c.runtime {
			process = "(container runtime)"
		}
		for _, x := range proof.GetDenied() {
			got = append(got, x.GetName())
			if x.GetProcess() != process || !c.runtime && !strings.HasPrefix(x.GetCaller(), "/bin/busybox+0x") || x.GetCount() == 0 || len(x.GetArgs()) != 6 || !strings.HasPrefix(x.GetText(), x.GetName()+"(") {
				t.Errorf("%s: refused call %v lacks process, caller, count or arguments", c.name, x)
			}
		}
		if !slices.Equal(got, c.without) {
			t.Errorf("%s: refused %v, want %v", c.name, got, c.without)
		}
		a.noSecondProof(id)
		d.mustBeEmpty(t)
	}
}

// seenBy observes the same image with the usual monitor.
func seenBy(t *testing.T, a *runningAgent, id string) *confinev1.Observation {
	t.Helper()
	a.start(id, &confinev1.RunSpec{Image: "web", Quiet: quick()})
	o := a.observation()
	a.end(id)
	a.runEnded()
	return o
}

// TestProofNeedsEyes has no monitor that sees refused calls.
func TestProofNeedsEyes(t *testing.T) {
	d := startContainerd(t)
	webImage().load(t, d)
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(pluginDir(t), "confine-monitor-poll"), filepath.Join(dir, "confine-monitor-poll")); err != nil {
		t.Fatal(err)
	}
	a := startAgentWith(t, d, "", dir)
	a.start("r1", &confinev1.RunSpec{Image: "web", Monitor: "poll", Quiet: quick()})
	proof := a.prove("r1", profileOf(t, a.observation()))
	if proof.GetStatus() != "skipped" || !strings.Contains(proof.GetDetail(), "poll does not see refused calls") {
		t.Errorf("%s: %s", proof.GetStatus(), proof.GetDetail())
	}
	a.noSecondProof("r1")
	d.mustBeEmpty(t)
}
