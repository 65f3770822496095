package monitor

import (
	"context"
	"maps"
	"slices"
	"sync"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// sinkLimit is the number of events that wait for a slow host, for each
// watch. What comes above it is lost and counted.
const sinkLimit = 1 << 16

// sinkBatch is the most messages that go to the host in one. Even where every
// path is as long as it can be, such a message stays below what hosts take.
const sinkBatch = 256

// tooSlow is the reason of losses between this process and its host.
const tooSlow = "the agent reads events too slowly"

// Sink takes the events of one watch. Its methods never block, Wait aside, and
// are safe for concurrent use. Events reach the host in the order of the calls.
type Sink struct {
	mu     sync.Mutex
	wake   chan struct{} // holds one token when there is something to do
	room   chan struct{} // holds one token when the queue was emptied
	queue  []*confinev1.WatchResponse
	limit  int
	batch  int
	closed bool
	sent   uint64            // events taken, all of which will be delivered
	lost   map[string]uint64 // since the watch began, by reason
	told   map[string]uint64 // the part of lost that the host was told
}

func newSink() *Sink {
	return &Sink{
		wake:  make(chan struct{}, 1),
		room:  make(chan struct{}, 1),
		limit: sinkLimit,
		batch: sinkBatch,
		lost:  make(map[string]uint64),
		told:  make(map[string]uint64),
	}
}

// Ready says that from now on everything in the scope is seen or counted.
func (s *Sink) Ready() {
	s.push(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Ready{Ready: &confinev1.Ready{}}}, false)
}

// Exec delivers an execve that succeeded.
func (s *Sink) Exec(e *confinev1.Exec) {
	s.push(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Exec{Exec: e}}, true)
}

// Mapping delivers a file that was mapped executable.
func (s *Sink) Mapping(m *confinev1.Mapping) {
	s.push(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Mapping{Mapping: m}}, true)
}

// Exit delivers the end of a process.
func (s *Sink) Exit(e *confinev1.Exit) {
	s.push(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Exit{Exit: e}}, true)
}

// Denied delivers a call that seccomp refused.
func (s *Sink) Denied(d *confinev1.DeniedCall) {
	s.push(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Denied{Denied: d}}, true)
}

// Lost says that count events could not be observed or delivered. The reason
// is for people, and should be one of few: counts are summed by it.
func (s *Sink) Lost(count uint64, reason string) {
	if count == 0 {
		return
	}
	s.mu.Lock()
	s.lost[reason] += count
	s.mu.Unlock()
	s.signal()
}

// Wait returns when there is room for events, or ctx ends. A backend that has
// a buffer of its own, whose overflow it counts, waits before it takes events
// out of it. It is for one goroutine.
func (s *Sink) Wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		full := len(s.queue) >= s.limit/2
		s.mu.Unlock()
		if !full {
			return ctx.Err()
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Sink) push(m *confinev1.WatchResponse, event bool) {
	s.mu.Lock()
	switch {
	case event && len(s.queue) >= s.limit:
		s.lost[tooSlow]++
	default:
		s.queue = append(s.queue, m)
		if event {
			s.sent++
		}
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// complete adds what the sink counted to a backend's snapshot.
func (s *Sink) complete(snap *confinev1.SnapshotResponse) *confinev1.SnapshotResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap.Events = s.sent
	if unsaid := snap.GetLost(); unsaid > 0 && len(snap.GetLosses()) == 0 {
		snap.Losses = append(snap.Losses, &confinev1.Lost{Count: unsaid, Reason: "reason unknown"})
	}
	for _, reason := range slices.Sorted(maps.Keys(s.lost)) {
		snap.Lost += s.lost[reason]
		snap.Losses = append(snap.Losses, &confinev1.Lost{Count: s.lost[reason], Reason: reason})
	}
	return snap
}

// close makes deliver return when the queue is empty.
func (s *Sink) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

// take empties the queue; losses come after the events.
func (s *Sink) take() (messages []*confinev1.WatchResponse, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages, s.queue = s.queue, nil
	for reason, n := range s.lost {
		if n == s.told[reason] {
			continue
		}
		messages = append(messages, &confinev1.WatchResponse{Event: &confinev1.WatchResponse_Lost{
			Lost: &confinev1.Lost{Count: n - s.told[reason], Reason: reason},
		}})
		s.told[reason] = n
	}
	return messages, s.closed
}

// deliver hands the queue to send until ctx ends, the sink is closed or send
// fails.
func (s *Sink) deliver(ctx context.Context, send func(*confinev1.WatchResponse) error) error {
	for {
		messages, closed := s.take()
		if err := sendAll(messages, s.batch, send); err != nil {
			return err
		}
		if len(messages) > 0 {
			select {
			case s.room <- struct{}{}:
			default:
			}
			continue
		}
		if closed {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
	}
}

// sendAll sends messages, several in one, but Ready alone.
func sendAll(messages []*confinev1.WatchResponse, batch int, send func(*confinev1.WatchResponse) error) error {
	if len(messages) > 0 && messages[0].GetReady() != nil {
		if err := send(messages[0]); err != nil {
			return err
		}
		messages = messages[1:]
	}
	for part := range slices.Chunk(messages, batch) {
		m := part[0]
		if len(part) > 1 {
			m = &confinev1.WatchResponse{Event: &confinev1.WatchResponse_Batch{Batch: &confinev1.Batch{Events: part}}}
		}
		if err := send(m); err != nil {
			return err
		}
	}
	return nil
}
