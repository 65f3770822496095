package main_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
	"github.com/confinehq/confine/test/scap"
)

func losses(events []*confinev1.WatchResponse) (reasons []string) {
	for _, e := range events {
		if l := e.GetLost(); l != nil {
			reasons = append(reasons, l.GetReason())
		}
	}
	return reasons
}

// The real program reads the real trace: one execution, the libraries that its
// loader mapped, the calls that were made.
func TestReplay(t *testing.T) {
	needSysdig(t)
	c := start(t, nil)
	found, err := c.InspectCapture(t.Context(), capture(t))
	if err != nil {
		t.Fatal(err)
	}
	if all := found.GetContainers(); len(all) != 1 || all[0].GetId() != "host" || all[0].GetExecs() != 1 || all[0].GetImage() != "" {
		t.Fatalf("it holds %v", all)
	}
	events, snap, err := replay(t, c, capture(t), "host")
	if err != nil {
		t.Fatal(err)
	}
	var execs, mapped []string
	for _, e := range events {
		if x := e.GetExec(); x != nil {
			execs = append(execs, filepath.Base(x.GetPath()))
		}
		if m := e.GetMapping(); m != nil {
			mapped = append(mapped, m.GetPath())
		}
	}
	if !slices.Equal(execs, []string{"curl"}) {
		t.Errorf("executed %q", execs)
	}
	for _, want := range []string{"/usr/lib/x86_64-linux-gnu/libcurl-gnutls.so.4", "/lib/x86_64-linux-gnu/libc.so.6"} {
		if !slices.Contains(mapped, want) {
			t.Errorf("%s is not among what was mapped: %q", want, mapped)
		}
	}
	if snap.GetLost() != 0 || len(losses(events)) != 0 {
		t.Errorf("%d lost: %q", snap.GetLost(), losses(events))
	}
	if rec := snap.GetRecorded(); len(rec) != 1 || len(rec[0].GetNrs()) < 30 {
		t.Errorf("recorded %v", rec)
	}
	if notes := strings.Join(snap.GetNotes(), "\n"); !strings.Contains(notes, "(pipe)") || strings.Contains(notes, "began after") {
		t.Errorf("notes %q", notes)
	}
}

// Nothing of another container is told.
func TestReplayOfAnother(t *testing.T) {
	needSysdig(t)
	events, snap, err := replay(t, start(t, nil), capture(t), "0123456789ab")
	if err != nil || len(events) != 0 || len(snap.GetRecorded()) != 0 {
		t.Errorf("%d events, %v, %v", len(events), snap.GetRecorded(), err)
	}
}

// contained writes the trace as if curl had run in a container.
func contained(t *testing.T, c scap.Container) string {
	t.Helper()
	trace, err := os.ReadFile(capture(t))
	if err != nil {
		t.Fatal(err)
	}
	if trace, err = scap.Contain(trace, c); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "contained.scap")
	if err := os.WriteFile(path, trace, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A container of a trace is known by id, name and image, and its processes
// alone are told.
func TestReplayOfAContainer(t *testing.T) {
	needSysdig(t)
	id := strings.Repeat("0123456789abcdef", 4)
	trace := contained(t, scap.Container{ID: id, Name: "web-7", Image: "docker.io/library/nginx:1.25"})
	c := start(t, nil)
	found, err := c.InspectCapture(t.Context(), trace)
	if err != nil {
		t.Fatal(err)
	}
	var web *confinev1.CapturedContainer
	for _, x := range found.GetContainers() {
		if x.GetId() == id[:12] {
			web = x
		}
	}
	if web.GetName() != "web-7" || web.GetImage() != "docker.io/library/nginx:1.25" || web.GetExecs() != 1 {
		t.Fatalf("it holds %v", found.GetContainers())
	}
	events, snap, err := replay(t, c, trace, id[:12])
	if err != nil || snap.GetLost() != 0 {
		t.Fatalf("%v, %d lost", err, snap.GetLost())
	}
	if !slices.ContainsFunc(events, func(e *confinev1.WatchResponse) bool { return filepath.Base(e.GetExec().GetPath()) == "curl" }) {
		t.Errorf("the execution of curl is not among %d events", len(events))
	}
	events, _, err = replay(t, c, trace, "host")
	if err != nil || slices.ContainsFunc(events, func(e *confinev1.WatchResponse) bool { return filepath.Base(e.GetExec().GetPath()) == "curl" }) {
		t.Errorf("the host's processes: %v, %v", events, err)
	}
}

// A trace that is cut off is used as far as it goes, and says so.
func TestReplayOfAPart(t *testing.T) {
	needSysdig(t)
	whole, err := os.ReadFile(capture(t))
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(t.TempDir(), "part.scap")
	if err := os.WriteFile(part, whole[:15000], 0o600); err != nil {
		t.Fatal(err)
	}
	events, snap, err := replay(t, start(t, nil), part, "")
	if err != nil {
		t.Fatal(err)
	}
	// The final count has the reason for sure; the stream may end before it.
	reason := func(l *confinev1.Lost) bool { return l.GetReason() == "the trace ends in the middle" }
	if snap.GetLost() != 1 || !slices.ContainsFunc(snap.GetLosses(), reason) || len(events) < 10 {
		t.Errorf("%d events, %d lost: %q", len(events), snap.GetLost(), snap.GetLosses())
	}
}

// What isn't a trace is refused in words.
func TestReplayOfNoTrace(t *testing.T) {
	needSysdig(t)
	c := start(t, nil)
	none := filepath.Join(t.TempDir(), "none.scap")
	if err := os.WriteFile(none, []byte("this is no trace"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{none, "/no/such/file"} {
		if _, err := c.InspectCapture(t.Context(), file); err == nil || !strings.Contains(err.Error(), "trace") {
			t.Errorf("inspect %s: %v", file, err)
		}
		if _, _, err := replay(t, c, file, ""); err == nil {
			t.Errorf("%s was replayed", file)
		}
	}
}

// Without a driver a live watch fails with a sentence that says what to do.
func TestNoDriver(t *testing.T) {
	needSysdig(t)
	if _, err := os.Stat("/dev/scap0"); err == nil {
		t.Skip("sysdig has a driver here")
	}
	c := start(t, nil)
	about, err := c.Describe(t.Context())
	if err != nil || about.GetCapabilities().GetExec() || !about.GetCapabilities().GetReplay() {
		t.Fatalf("%v, %v", about, err)
	}
	_, err = c.Watch(t.Context(), &confinev1.Scope{Pid: int32(os.Getpid())})
	for _, want := range []string{"driver", "install", "--monitor ebpf", "--capture"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: it doesn't say %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than a line", err)
	}
}

// program writes a program that stands for a broken sysdig.
func program(t *testing.T, script string) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sysdig")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"tool": path}
}

func TestBrokenTools(t *testing.T) {
	needSysdig(t)
	for name, c := range map[string]struct {
		options map[string]string
		want    string
	}{
		"missing": {map[string]string{"tool": "/no/such/sysdig"}, "apt-get install sysdig"},
		"old":     {program(t, "echo sysdig version 0.26.7\n"), "too old"},
		"other":   {program(t, "echo something else\n"), "no version"},
	} {
		if _, err := start(t, c.options).Describe(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.want)
		}
	}
}

// Lines that can't be read are counted, drops are too, and the rest counts.
func TestMalformedOutput(t *testing.T) {
	needSysdig(t)
	options := program(t, `case $1 in --version) echo sysdig version 0.29.3; exit;; esac
echo 'this is no event'
echo '{"evt.type":"execve","evt.dir":"<","proc.pid":7,"thread.tid":7,"container.id":"host","evt.arg.res":"0","proc.exepath":"/bin/sh"}'
echo '{"evt.type":"drop","evt.dir":">"}'
head -c 300000 /dev/zero | tr '\0' x; echo
echo 'Driver Drops:5' >&2
`)
	events, snap, err := replay(t, start(t, options), capture(t), "")
	if err != nil {
		t.Fatal(err)
	}
	// One unreadable line, two pieces of an overlong one, a drop, and five.
	if snap.GetLost() != 9 {
		t.Errorf("%d lost, want 9: %q", snap.GetLost(), losses(events))
	}
	if !slices.ContainsFunc(events, func(e *confinev1.WatchResponse) bool { return e.GetExec() != nil }) {
		t.Errorf("the execution is missing: %v", events)
	}
}
