package agent

import (
	"context"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// tap hands on the events of a watch.
type tap struct {
	watch *monitor.Watch
	// drained is closed when every event has been taken.
	drained chan struct{}
}

func newTap(watch *monitor.Watch, handle func(*confinev1.WatchResponse)) tap {
	t := tap{watch, make(chan struct{})}
	go func() {
		defer close(t.drained)
		for ev := range watch.Events() {
			handle(ev)
		}
	}()
	return t
}

// stop takes the last events and returns the final counters.
func (t tap) stop(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	snap, err := t.watch.Stop(ctx)
	<-t.drained
	return snap, err
}

// abandon ends a watch whose result nobody wants.
func (t tap) abandon() {
	t.watch.Cancel()
	<-t.drained
}

// died cancels when the monitor goes away before ctx ends.
func (t tap) died(ctx context.Context, cancel context.CancelCauseFunc) {
	select {
	case <-t.watch.Done():
		cancel(&errMonitorDied{t.watch.Err()})
	case <-ctx.Done():
	}
}
