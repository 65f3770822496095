package monitor

import (
	"context"
	"errors"
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

// silence is how long a monitor may take for the next event that it has
// counted already.
const silence = 5 * time.Second

// Watch is one observation of one scope. Events must be read until the channel
// is closed, or the Watch cancelled.
type Watch struct {
	// ID names the watch in the plugin.
	ID string

	client *Client
	cancel context.CancelFunc
	events chan *confinev1.WatchResponse

	guard *guard // used by pump alone, and after done

	mu      sync.Mutex
	known   counters      // as the newest snapshot told
	seen    uint64        // events taken from the stream
	lost    uint64        // as Lost messages told
	refused uint64        // events that weren't believed
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
		guard:  newGuard(scope),
		done:   make(chan struct{}),
	}
	stream, err := c.open(ctx, &confinev1.WatchRequest{WatchId: w.ID, Scope: scope})
	if err != nil {
		cancel()
		w.guard.groups.close()
		return nil, err
	}
	go w.pump(ctx, stream)
	return w, nil
}

// open begins the stream of a watch and returns when the monitor is ready.
func (c *Client) open(ctx context.Context, req *confinev1.WatchRequest) (grpc.ServerStreamingClient[confinev1.WatchResponse], error) {
	late := time.AfterFunc(c.answer, func() { c.hang("watch") })
	defer late.Stop()
	stream, err := c.rpc.Watch(ctx, req)
	if err != nil {
		return nil, c.wrap("watch", err)
	}
	first, err := stream.Recv()
	if err == nil && first.GetReady() == nil {
		err = errors.New("the first message isn't ready; the plugin breaks the contract")
	}
	if err != nil {
		return nil, c.wrap("watch", err)
	}
	return stream, nil
}

// counters are those of a snapshot, which never go down.
type counters struct{ events, lost, repeated uint64 }

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
	return w.lost + w.refused
}

// Seen is the number of events that were taken from the stream, Lost messages
// aside.
func (w *Watch) Seen() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
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

// Faults says how the monitor broke the contract, a sentence each: what it
// told isn't to be relied on then. It may be called once Done is closed.
func (w *Watch) Faults() []string { return w.guard.sentences() }

// Snapshot returns the counters and recorded calls so far.
func (w *Watch) Snapshot(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	s, _, err := w.snapshot(ctx)
	return s, err
}

// snapshot also says how the counts contradict what was told before.
func (w *Watch) snapshot(ctx context.Context) (s *confinev1.SnapshotResponse, lies []string, err error) {
	w.mu.Lock()
	seen, lost := w.seen, w.lost
	w.mu.Unlock()
	ask := w.client.Snapshot
	if w.guard.scope.GetCapture() != nil {
		ask = w.client.finalSnapshot
	}
	if s, err = ask(ctx, w.ID); err != nil {
		return nil, nil, err
	}
	r := s.GetRepeated()
	now := counters{s.GetEvents(), s.GetLost(), r.GetExecs() + r.GetMappings() + r.GetExits()}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.events < seen {
		lies = append(lies, "it counts fewer events than it sent")
	}
	if now.events < w.known.events || now.repeated < w.known.repeated {
		lies = append(lies, "its count of events went down")
	}
	if now.lost < max(lost, w.known.lost) {
		lies = append(lies, "its count of lost events went down")
		s.Lost = max(lost, w.known.lost)
	}
	w.known = counters{max(now.events, w.known.events), max(now.lost, w.known.lost), max(now.repeated, w.known.repeated)}
	return s, lies, nil
}

// Stop ends the watch without losing anything: everything that happened before
// the call comes out of Events, which is then closed. Somebody must be reading
// Events meanwhile. The snapshot is the final one.
func (w *Watch) Stop(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	snap, lies, err := w.snapshot(ctx)
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
	missing := w.awaitAll(ctx, reached)
	w.cancel()
	<-w.done
	if missing > 0 && w.Err() == nil {
		lies = append(lies, "it counts more events than it sent")
		snap.Lost += missing
	}
	snap.Lost += w.refused
	for _, l := range lies {
		w.guard.fault(l)
	}
	return snap, w.Err()
}

// awaitAll waits until every event was taken that the monitor counted, and
// returns how many are missing when none comes any more.
func (w *Watch) awaitAll(ctx context.Context, reached <-chan struct{}) (missing uint64) {
	var before uint64
	for first := true; ; first = false {
		w.mu.Lock()
		seen, target := w.seen, w.target
		w.mu.Unlock()
		if !first && seen == before || ctx.Err() != nil {
			return target - min(seen, target)
		}
		before = seen
		wait := time.NewTimer(silence)
		select {
		case <-reached:
			wait.Stop()
			return 0
		case <-w.done:
			wait.Stop()
			return 0
		case <-ctx.Done():
			wait.Stop()
		case <-wait.C:
		}
	}
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
	defer w.guard.groups.close()
	defer w.cancel()
	for {
		m, err := stream.Recv()
		if err != nil {
			w.fail(ctx, err)
			return
		}
		if !w.take(ctx, m) {
			w.fail(ctx, ctx.Err())
			return
		}
	}
}

// take passes a message on, each of a batch for itself; it reports false when
// ctx has ended.
func (w *Watch) take(ctx context.Context, m *confinev1.WatchResponse) bool {
	events := m.GetBatch().GetEvents()
	if m.GetBatch() == nil {
		events = []*confinev1.WatchResponse{m}
	}
	var seen, lost, refused uint64
	for _, e := range events {
		if e.GetLost() == nil {
			seen++
		}
		if !w.guard.admit(e) {
			refused++
			continue
		}
		lost += e.GetLost().GetCount()
		select {
		case w.events <- e:
		case <-ctx.Done():
			return false
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen += seen
	w.lost += lost
	w.refused += refused
	w.checkTarget()
	return true
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
