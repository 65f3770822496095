package monitor

import (
	"context"
	"sync"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// sinkLimit is the number of events that wait for a slow host, for each
// watch. What comes above it is lost and counted.
const sinkLimit = 1 << 18

// Sink takes the events of one watch. Its methods never block and are safe for
// concurrent use. Events reach the host in the order of the calls.
type Sink struct {
	mu     sync.Mutex
	wake   chan struct{} // holds one token when there is something to do
	queue  []*confinev1.WatchResponse
	limit  int
	closed bool
	sent   uint64            // events taken, all of which will be delivered
	lost   uint64            // since the watch began
	unsaid map[string]uint64 // losses not yet told to the host, by reason
}

func newSink() *Sink {
	return &Sink{
		wake:   make(chan struct{}, 1),
		limit:  sinkLimit,
		unsaid: make(map[string]uint64),
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
	s.lost += count
	s.unsaid[reason] += count
	s.mu.Unlock()
	s.signal()
}

func (s *Sink) push(m *confinev1.WatchResponse, event bool) {
	s.mu.Lock()
	switch {
	case event && len(s.queue) >= s.limit:
		s.lost++
		s.unsaid["the agent reads events too slowly"]++
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

// counts returns the events taken and those lost so far.
func (s *Sink) counts() (sent, lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.lost
}

// close makes deliver return when the queue is empty.
func (s *Sink) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

// take empties the queue; losses come after the events.
func (s *Sink) take() (batch []*confinev1.WatchResponse, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, s.queue = s.queue, nil
	for reason, n := range s.unsaid {
		batch = append(batch, &confinev1.WatchResponse{Event: &confinev1.WatchResponse_Lost{
			Lost: &confinev1.Lost{Count: n, Reason: reason},
		}})
		delete(s.unsaid, reason)
	}
	return batch, s.closed
}

// deliver hands the queue to send until ctx ends, the sink is closed or send
// fails.
func (s *Sink) deliver(ctx context.Context, send func(*confinev1.WatchResponse) error) error {
	for {
		batch, closed := s.take()
		for _, m := range batch {
			if err := send(m); err != nil {
				return err
			}
		}
		if closed && len(batch) == 0 {
			return nil
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
	}
}
