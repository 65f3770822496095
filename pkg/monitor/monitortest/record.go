package monitortest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// record is what a watch has told so far.
type record struct {
	t     *testing.T
	watch *monitor.Watch
	began uint64 // of the watch, in the time of events
	done  chan struct{}

	mu       sync.Mutex
	execs    []*confinev1.Exec
	mappings []*confinev1.Mapping
	exits    []*confinev1.Exit
	events   uint64
	lost     uint64
}

// watch begins to watch; what is told is kept.
func (s *suite) watch(t *testing.T, c *monitor.Client, scope *confinev1.Scope) *record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	t.Cleanup(cancel)
	r := &record{t: t, began: now(), done: make(chan struct{})}
	w, err := c.Watch(ctx, scope)
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	r.watch = w
	go func() {
		defer close(r.done)
		for m := range w.Events() {
			r.add(m)
		}
	}()
	return r
}

// now is the time of events: CLOCK_BOOTTIME in nanoseconds.
func now() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

func (r *record) add(m *confinev1.WatchResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events++
	switch e := m.GetEvent().(type) {
	case *confinev1.WatchResponse_Exec:
		r.execs = append(r.execs, e.Exec)
	case *confinev1.WatchResponse_Mapping:
		r.mappings = append(r.mappings, e.Mapping)
	case *confinev1.WatchResponse_Exit:
		r.exits = append(r.exits, e.Exit)
	case *confinev1.WatchResponse_Lost:
		r.events--
		r.lost += e.Lost.GetCount()
	}
}

// stop ends the watch in order and checks the final counts.
func (r *record) stop() *confinev1.SnapshotResponse {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), limit)
	defer cancel()
	snap, err := r.watch.Stop(ctx)
	if err != nil {
		r.t.Fatalf("stop: %v", err)
	}
	<-r.done
	for _, fault := range r.watch.Faults() {
		r.t.Errorf("it broke the contract: %s", fault)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events < snap.GetEvents() {
		r.t.Errorf("%d events were delivered, the final count says %d", r.events, snap.GetEvents())
	}
	if r.lost > snap.GetLost() {
		r.t.Errorf("%d losses were told, the final count says %d", r.lost, snap.GetLost())
	}
	return snap
}

// await waits until the monitor has told what holds for ok; what names it.
func (r *record) await(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit / 2); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		found := ok()
		r.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("it doesn't tell of %s; it told of %s", what, r.text())
		}
	}
}

// exec waits for an execution of path and returns it.
func (r *record) exec(path string) *confinev1.Exec {
	r.t.Helper()
	var found *confinev1.Exec
	r.await("the execution of "+path, func() bool {
		found = r.find(path)
		return found != nil
	})
	return found
}

// find returns the first execution of path, nil when there is none. mu is held.
func (r *record) find(path string) *confinev1.Exec {
	for _, e := range r.execs {
		if e.GetPath() == path {
			return e
		}
	}
	return nil
}

// text lists what was told, for messages.
func (r *record) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.execs {
		fmt.Fprintf(&b, "exec %s (%s) by %d; ", e.GetPath(), e.GetFilename(), e.GetPid())
	}
	for _, m := range r.mappings {
		fmt.Fprintf(&b, "mapping %s by %d; ", m.GetPath(), m.GetPid())
	}
	fmt.Fprintf(&b, "%d losses", r.lost)
	return b.String()
}
