package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// endGrace is how long a broken connection may take to turn out to be the end
// of the process.
const endGrace = 2 * time.Second

// Watch is one observation of one scope. Events must be read until the channel
// is closed, or the Watch cancelled.
type Watch struct {
	// ID names the watch in the plugin.
	ID string

	client *Client
	cancel context.CancelFunc
	events chan *confinev1.WatchResponse

	mu      sync.Mutex
	seen    uint64        // events taken from the stream
	lost    uint64        // as Lost messages told
	target  uint64        // events to see before the end; valid when sync is set
	sync    chan struct{} // not nil while Stop waits for target
	reached bool
	err     error
	done    chan struct{} // closed after events
}

// Watch begins to watch a scope and returns when the monitor is ready:
// everything that happens in the scope after it is seen or counted as lost.
// The watch ends with ctx, Stop or Cancel, or when the plugin fails.
func (c *Client) Watch(ctx context.Context, scope *confinev1.Scope) (*Watch, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watch{
		ID:     uuid.NewString(),
		client: c,
		cancel: cancel,
		events: make(chan *confinev1.WatchResponse, 1024),
		done:   make(chan struct{}),
	}
	stream, err := c.rpc.Watch(ctx, &confinev1.WatchRequest{WatchId: w.ID, Scope: scope})
	if err != nil {
		cancel()
		return nil, c.wrap("watch", err)
	}
	first, err := stream.Recv()
	if err == nil && first.GetReady() == nil {
		err = errors.New("the first message isn't ready; the plugin breaks the contract")
	}
	if err != nil {
		cancel()
		return nil, c.wrap("watch", err)
	}
	go w.pump(ctx, stream)
	return w, nil
}

// Events delivers what happens, Lost messages included. The channel is closed
// at the end of the watch; Err says then whether it was a good end.
func (w *Watch) Events() <-chan *confinev1.WatchResponse { return w.events }

// Done is closed when the watch has ended, after Events.
func (w *Watch) Done() <-chan struct{} { return w.done }

// Lost is the number of events lost as far as the stream has told; the
// snapshot that Stop returns has the final number.
func (w *Watch) Lost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Err is nil while the watch runs and after Stop or Cancel. It is ErrEnded when
// the plugin's process ended.
func (w *Watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Cancel ends the watch at once. Events that weren't read yet may be dropped.
func (w *Watch) Cancel() { w.cancel() }

// Snapshot returns the counters and recorded calls so far.
func (w *Watch) Snapshot(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	return w.client.Snapshot(ctx, w.ID)
}

// Stop ends the watch without losing anything: everything that happened before
// the call comes out of Events, which is then closed. Somebody must be reading
// Events meanwhile. The snapshot is the final one.
func (w *Watch) Stop(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	snap, err := w.Snapshot(ctx)
	if err != nil {
		w.cancel()
		<-w.done
		return nil, err
	}
	w.mu.Lock()
	w.target = snap.GetEvents()
	w.sync = make(chan struct{})
	w.checkTarget()
	reached := w.sync
	w.mu.Unlock()
	select {
	case <-reached:
	case <-w.done:
	case <-ctx.Done():
		err = fmt.Errorf("monitor %s: stop watch: read the last events: %w", w.client.name, ctx.Err())
	}
	w.cancel()
	<-w.done
	if err == nil {
		err = w.Err()
	}
	return snap, err
}

// checkTarget is called with mu held.
func (w *Watch) checkTarget() {
	if w.sync != nil && !w.reached && w.seen >= w.target {
		w.reached = true
		close(w.sync)
	}
}

func (w *Watch) pump(ctx context.Context, stream grpc.ServerStreamingClient[confinev1.WatchResponse]) {
	defer close(w.done)
	defer close(w.events)
	defer w.cancel()
	for {
		m, err := stream.Recv()
		if err != nil {
			w.fail(ctx, err)
			return
		}
		select {
		case w.events <- m:
		case <-ctx.Done():
			w.fail(ctx, ctx.Err())
			return
		}
		w.mu.Lock()
		if l := m.GetLost(); l != nil {
			w.lost += l.GetCount()
		} else {
			w.seen++
		}
		w.checkTarget()
		w.mu.Unlock()
	}
}

// fail records why the stream ended, unless the host ended it.
func (w *Watch) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, io.EOF) {
		err = status.Error(codes.Aborted, "the monitor stopped before it was asked to")
	}
	err = w.client.wrap("watch", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// ended returns the error that says that the process has ended, if that is why
// a call broke off.
func (c *Client) ended(err error) error {
	if status.Code(err) != codes.Unavailable {
		return c.Err()
	}
	select {
	case <-c.done:
	case <-c.stop:
	case <-time.After(endGrace):
	}
	return c.Err()
}
