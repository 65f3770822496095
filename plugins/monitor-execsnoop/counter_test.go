package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/confinehq/confine/bench/box"
	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Executions that the tool doesn't report, and that nobody finds in /proc
// because the processes end at once, are counted as lost: as many as there were.
func TestUntoldAreCounted(t *testing.T) {
	const count = 20
	c := start(t, map[string]string{"tool": need(t, "execsnoop")})
	d, err := c.Describe(t.Context())
	if err != nil || d.GetCapabilities().GetMissesShortLived() {
		t.Fatalf("%v, %v; want that it misses nothing uncounted", d, err)
	}
	thread := filepath.Join(t.TempDir(), "threadexec")
	build := exec.Command("go", "build", "-o", thread, "./testdata/threadexec")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	loop := `read x; i=0; while [ $i -lt ` + strconv.Itoa(count) + ` ]; do "$1" /bin/true; /bin/true; i=$((i+1)); done`
	b, err := box.Start(exec.Command("/bin/sh", "-c", loop, "sh", thread))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Group == "" {
		t.Skip("no control groups of version 2 are mounted")
	}
	scope := b.Scope()
	scope.EveryEvent = true
	var seen uint64
	snap := watched(t, c, b, scope, func(ev *confinev1.WatchResponse) {
		if _, ok := ev.GetEvent().(*confinev1.WatchResponse_Exec); ok {
			seen++
		}
	})
	if snap.GetLost() == 0 || seen+snap.GetLost() != 3*count {
		t.Errorf("%d executions told and %d lost (%v), want %d together", seen, snap.GetLost(), snap.GetLosses(), 3*count)
	}
}

// watched runs a box to its end under a watch and has each event looked at.
func watched(t *testing.T, c *monitor.Client, b *box.Box, scope *monitor.Scope, look func(*confinev1.WatchResponse)) *confinev1.SnapshotResponse {
	t.Helper()
	w, err := c.Watch(t.Context(), scope)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for ev := range w.Events() {
			look(ev)
		}
	}()
	if _, err := b.Run(); err != nil {
		t.Fatal(err)
	}
	snap, err := w.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-read
	return snap
}
