package agent_test

import (
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"time"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func quick() *durationpb.Duration { return durationpb.New(500 * time.Millisecond) }

func TestRunObservesAndLeavesNothing(t *testing.T) {
	d := startContainerd(t)
	img := busyboxImage("docker.io/library/web:latest", v1.Config{
		Entrypoint: []string{"/entry.sh"}, Env: []string{"PATH=/bin"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	})
	img.scripts = map[string]string{"entry.sh": "#!/bin/sh\nls / >/dev/null\nmkdir -p /tmp/www\nexec httpd -f -p 8080 -h /tmp/www\n"}
	img.load(t, d)
	a := startAgent(t, d, "")
	a.start("r1", &confinev1.RunSpec{Image: "web", Quiet: quick()})
	o := a.observation()
	t.Logf("%v", o)
	if got, want := o.GetRun().GetSettledBy(), "port 8080 answered, quiet for 500ms"; got != want {
		t.Errorf("settled by %q, want %q", got, want)
	}
	if o.GetRun().GetLost() != 0 {
		t.Errorf("lost %d events", o.GetRun().GetLost())
	}
	var paths []string
	for _, f := range o.GetFiles() {
		paths = append(paths, f.GetPath())
	}
	if want := []string{"/bin/busybox", "/entry.sh"}; !slices.Equal(paths, want) {
		t.Errorf("files %v, want %v", paths, want)
	}
	a.end("r1")
	if left := a.runEnded().GetLeftovers(); len(left) > 0 {
		t.Errorf("leftovers: %v", left)
	}
	d.mustBeEmpty(t)
}
