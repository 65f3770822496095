package agent

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Bounds of what is kept for a server that doesn't acknowledge.
const (
	outboxMessages = 4096
	outboxBytes    = 64 << 20
)

// outbox keeps messages until the server has acknowledged them, and numbers
// them. A full outbox makes add wait.
type outbox struct {
	mu      sync.Mutex
	seq     uint64
	pending []*confinev1.ConnectRequest // sorted by seq
	sizes   []int                       // of pending, bytes
	bytes   int                         // sum of sizes
	// changed is closed and replaced whenever pending changes.
	changed chan struct{}
}

func newOutbox() *outbox { return &outbox{changed: make(chan struct{})} }

func (o *outbox) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// add queues a message; it waits while there is no room, at most until ctx
// ends.
func (o *outbox) add(ctx context.Context, m *confinev1.ConnectRequest) error {
	validText(m.ProtoReflect())
	size := proto.Size(m)
	for {
		o.mu.Lock()
		if len(o.pending) == 0 || len(o.pending) < outboxMessages && o.bytes+size <= outboxBytes {
			o.seq++
			m.Seq = o.seq
			o.pending = append(o.pending, m)
			o.sizes = append(o.sizes, size)
			o.bytes += size
			o.wake()
			o.mu.Unlock()
			return nil
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// crowded reports whether messages that nobody will miss should be left out.
func (o *outbox) crowded() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending) > outboxMessages/2 || o.bytes > outboxBytes/2
}

// ack drops everything up to seq.
func (o *outbox) ack(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(o.pending) && o.pending[n].Seq <= seq {
		o.bytes -= o.sizes[n]
		n++
	}
	if n > 0 {
		o.pending = slices.Delete(o.pending, 0, n)
		o.sizes = slices.Delete(o.sizes, 0, n)
		o.wake()
	}
}

// after returns the messages above seq, and a channel that is closed when
// there may be others.
func (o *outbox) after(seq uint64) ([]*confinev1.ConnectRequest, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i, _ := slices.BinarySearchFunc(o.pending, seq+1, func(m *confinev1.ConnectRequest, s uint64) int {
		switch {
		case m.Seq < s:
			return -1
		case m.Seq > s:
			return 1
		default:
			return 0
		}
	})
	return slices.Clone(o.pending[i:]), o.changed
}
