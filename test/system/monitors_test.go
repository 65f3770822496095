package system

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
	"github.com/confinehq/confine/test/scap"
)

// calls lists the names of what a result allows.
func calls(r *confinev1.Result) []string {
	var names []string
	for _, s := range r.GetSyscalls() {
		names = append(names, s.GetName())
	}
	return names
}

// programs lists what was executed.
func programs(r *confinev1.Result) []string {
	var paths []string
	for _, e := range r.GetExecuted() {
		paths = append(paths, e.GetPath())
	}
	return paths
}

// noted reports whether a result says what its monitor can't see.
func noted(r *confinev1.Result) bool {
	return slices.ContainsFunc(r.GetNotes(), func(i *confinev1.Incomplete) bool { return i.GetKind() == "monitor-limit" })
}

// TestExecsnoop: the monitor that knows names alone comes to the same profile
// as the one that sees everything, and says what it can't see.
func TestExecsnoop(t *testing.T) {
	w := newWorld(t, "nginx", "memcached")
	for _, image := range []string{"nginx", "memcached"} {
		seen, stderr, code := w.profile(t, "--node", "n1", image)
		if code != 0 {
			t.Fatalf("%s with ebpf: exit code %d:\n%s", image, code, stderr)
		}
		other, stderr, code := w.profile(t, "--node", "n1", "--monitor", "execsnoop", image)
		if other == nil {
			t.Fatalf("%s with execsnoop: exit code %d:\n%s", image, code, stderr)
		}
		checkProven(t, other)
		if other.GetMonitor() != "execsnoop" || !noted(other) || noted(seen) {
			t.Errorf("%s: monitor %s, its limits noted %v, those of ebpf %v", image, other.GetMonitor(), noted(other), noted(seen))
		}
		if a, b := calls(seen), calls(other); !slices.Equal(a, b) {
			t.Errorf("%s: ebpf led to %q, execsnoop to %q", image, a, b)
		}
		if a, b := programs(seen), programs(other); !slices.Equal(a, b) {
			t.Errorf("%s: ebpf saw %q, execsnoop %q", image, a, b)
		}
	}
	w.mustBeClean(t)
}

// TestCapture makes a profile from a trace that was recorded elsewhere, of
// another version of the program: what the image lacks is named.
func TestCapture(t *testing.T) {
	w := newWorld(t, "curl")
	trace, err := filepath.Abs("../../plugins/monitor-sysdig/testdata/curl_google.scap")
	if err != nil {
		t.Fatal(err)
	}
	r, stderr, code := w.profile(t, "--node", "n1", "--capture", trace, "docker.io/confine/curl:latest")
	if code != 3 || r == nil {
		t.Fatalf("exit code %d, want 3:\n%s", code, stderr)
	}
	if got := programs(r); !slices.Equal(got, []string{"/usr/bin/curl"}) {
		t.Errorf("executed %q", got)
	}
	if s := r.GetProof().GetStatus(); s != "proven" {
		t.Errorf("proof is %q: %s", s, r.GetProof().GetDetail())
	}
	absent := func(i *confinev1.Incomplete) bool {
		return i.GetKind() == "unreadable-object" && strings.HasSuffix(i.GetObject(), "/libcurl-gnutls.so.4") && strings.Contains(i.GetDetail(), "doesn't have it")
	}
	if !slices.ContainsFunc(r.GetIncomplete(), absent) {
		t.Errorf("nothing is said of a library that the image lacks: %v", r.GetIncomplete())
	}
	for _, name := range []string{"open", "socket", "connect"} { // made in the trace
		if !slices.Contains(calls(r), name) {
			t.Errorf("call %s was made in the trace and is not allowed", name)
		}
	}
	if slices.ContainsFunc(r.GetIncomplete(), func(i *confinev1.Incomplete) bool { return i.GetKind() == "static-miss" }) {
		t.Errorf("a difference of versions is called a mistake of the analysis: %v", r.GetIncomplete())
	}

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--capture", trace}, "name it"},
		{[]string{"--capture", trace, "--capture-container", "web-7", "docker.io/confine/curl:latest"}, "it holds: host"},
		{[]string{"--capture", trace, "--monitor", "ebpf", "docker.io/confine/curl:latest"}, "--monitor sysdig"},
		{[]string{"--capture", "/no/such/file", "docker.io/confine/curl:latest"}, "/no/such/file"},
	} {
		if _, stderr, code := w.profile(t, append([]string{"--node", "n1"}, c.args...)...); code != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: exit code %d, want 1 and %q:\n%s", c.args, code, c.want, stderr)
		}
	}
	w.mustBeClean(t)
}

// TestCaptureContainer chooses a container of a trace by each of its names.
func TestCaptureContainer(t *testing.T) {
	w := newWorld(t, "curl")
	trace, err := os.ReadFile("../../plugins/monitor-sysdig/testdata/curl_google.scap")
	if err != nil {
		t.Fatal(err)
	}
	const image = "docker.io/confine/curl:latest"
	id := strings.Repeat("0123456789abcdef", 4)
	if trace, err = scap.Contain(trace, scap.Container{ID: id, Name: "web-7", Image: image}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.dir, "contained.scap")
	if err := os.WriteFile(file, trace, 0o600); err != nil {
		t.Fatal(err)
	}
	// The image may be left out: the trace tells it.
	for _, name := range []string{id, id[:12], "web-7", image, ""} {
		args := []string{"--node", "n1", "--no-proof", "--capture", file}
		if name != "" {
			args = append(args, "--capture-container", name)
		}
		r, stderr, code := w.profile(t, args...)
		if code != 3 || r.GetImage() != image || !slices.Equal(programs(r), []string{"/usr/bin/curl"}) {
			t.Errorf("%q: exit code %d, image %s, executed %q\n%s", name, code, r.GetImage(), programs(r), stderr)
		}
	}
	_, stderr, code := w.profile(t, "--node", "n1", "--capture", file, "--capture-container", "web-8")
	if code != 1 || !strings.Contains(stderr, id[:12]+" web-7 "+image) {
		t.Errorf("an unknown container: exit code %d\n%s", code, stderr)
	}
	w.mustBeClean(t)
}
