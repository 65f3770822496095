package monitortest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// described checks what a monitor says about itself.
func (s *suite) described(d *confinev1.DescribeResponse) func(*testing.T) {
	return func(t *testing.T) {
		c := s.start(t)
		if d.GetName() != c.Name() {
			t.Errorf("it calls itself %q, and its executable %q: users choose it by the latter", d.GetName(), c.Name())
		}
		if d.GetVersion() == "" {
			t.Error("it has no version")
		}
		can := d.GetCapabilities()
		if !can.GetExec() && !can.GetExecMapping() && !can.GetReplay() {
			t.Errorf("it can see neither executions nor mappings, and replay none: %v", can)
		}
		if (can.GetMissesShortLived() || can.GetMissesShortMappings()) && len(d.GetLimits()) == 0 {
			t.Error("it can miss something, and has no sentence about it among its limits")
		}
		again, err := c.Describe(t.Context())
		if err != nil || again.GetVersion() != d.GetVersion() {
			t.Errorf("asked again it says %v, %v", again, err)
		}
	}
}

func (s *suite) unknownWatch(t *testing.T) {
	_, err := s.start(t).Snapshot(t.Context(), "no-such-watch")
	if status.Code(errors.Unwrap(err)) != codes.NotFound {
		t.Errorf("snapshot of an unknown watch: %v, want NotFound (monitor.ErrUnknownWatch)", err)
	}
}

// emptyScope: a scope that selects nothing must not select everything.
func (s *suite) emptyScope(t *testing.T) {
	if s.cfg.Replay {
		return // every scope takes all that is replayed
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	w, err := s.start(t).Watch(ctx, &confinev1.Scope{})
	if err == nil {
		w.Cancel()
		t.Fatal("it watches a scope that selects nothing")
	}
	if status.Code(errors.Unwrap(err)) != codes.InvalidArgument {
		t.Errorf("a scope that selects nothing: %v, want InvalidArgument (monitor.ErrInvalidScope)", err)
	}
}

// counts asks for snapshots again and again: no count may go down.
func (s *suite) counts(t *testing.T) {
	b := newBox(t, nil, "/bin/sh", "-c", loop, "sh", "50", tiny(t, "short"))
	r := s.watch(t, s.start(t), s.scope(b))
	b.letGo()
	var last *confinev1.SnapshotResponse
	for range 20 {
		snap, err := r.watch.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if snap.GetEvents() < last.GetEvents() || snap.GetLost() < last.GetLost() || repeats(snap) < repeats(last) {
			t.Fatalf("counts went down: from %v to %v", last, snap)
		}
		last = snap
		time.Sleep(5 * time.Millisecond)
	}
	b.end()
	final := r.stop()
	if final.GetEvents() < last.GetEvents() || final.GetLost() < last.GetLost() {
		t.Errorf("counts went down: from %v to %v", last, final)
	}
	var sum uint64
	for _, l := range final.GetLosses() {
		sum += l.GetCount()
	}
	if sum != final.GetLost() {
		t.Errorf("%d lost, and %d by reason", final.GetLost(), sum)
	}
}

func repeats(snap *confinev1.SnapshotResponse) uint64 {
	r := snap.GetRepeated()
	return r.GetExecs() + r.GetMappings() + r.GetExits()
}

// cancel ends a watch in the middle; the monitor goes on for others.
func (s *suite) cancel(t *testing.T) {
	c := s.start(t)
	b := newBox(t, nil, tiny(t, "waits"))
	ctx, cancel := context.WithCancel(t.Context())
	w, err := c.Watch(ctx, s.scope(b))
	if err != nil {
		t.Fatal(err)
	}
	b.letGo()
	cancel()
	for range w.Events() {
	}
	if w.Err() != nil {
		t.Errorf("a watch that its host ended: %v", w.Err())
	}
	// The plugin's side ends a little later than the host's.
	for end := time.Now().Add(limit / 2); ; time.Sleep(10 * time.Millisecond) {
		_, err := c.Snapshot(t.Context(), w.ID)
		if status.Code(errors.Unwrap(err)) == codes.NotFound {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the watch goes on in the monitor: snapshot says %v", err)
		}
	}
	s.watch(t, c, s.scope(b)).stop()
}

// crash kills the monitor in the middle of a watch.
func (s *suite) crash(t *testing.T) {
	c := s.start(t)
	b := newBox(t, nil, tiny(t, "waits"))
	w, err := c.Watch(t.Context(), s.scope(b))
	if err != nil {
		t.Fatal(err)
	}
	b.letGo()
	if err := unix.Kill(c.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range w.Events() {
	}
	if !errors.Is(w.Err(), monitor.ErrEnded) {
		t.Errorf("the watch of a monitor that was killed: %v, want ErrEnded", w.Err())
	}
	// What it left in the kernel or in files is no obstacle for the next one.
	s.watch(t, s.start(t), s.scope(b)).stop()
}

// closes checks that nothing stays behind, and that what the monitor starts
// ends with it.
func (s *suite) closes(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	c := s.start(t)
	b := newBox(t, nil, tiny(t, "waits"))
	w, err := c.Watch(t.Context(), s.scope(b))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for range w.Events() {
	}
	for end := time.Now().Add(limit / 2); unix.Kill(-c.PID(), 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("processes of group %d still run", c.PID())
		}
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		t.Errorf("%s stays behind", f.Name())
	}
}
