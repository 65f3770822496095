package monitor

import (
	"context"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// deliverAll closes the sink and returns what comes out of it.
func deliverAll(t *testing.T, s *Sink) []*confinev1.WatchResponse {
	t.Helper()
	s.close()
	var out []*confinev1.WatchResponse
	err := s.deliver(context.Background(), func(m *confinev1.WatchResponse) error {
		if m.GetBatch() != nil {
			out = append(out, m.GetBatch().GetEvents()...)
			return nil
		}
		out = append(out, m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// counts checks what a sink adds to a snapshot.
func counts(t *testing.T, s *Sink, sent, lost uint64) {
	t.Helper()
	snap := s.complete(&confinev1.SnapshotResponse{})
	var sum uint64
	for _, l := range snap.GetLosses() {
		sum += l.GetCount()
	}
	if snap.GetEvents() != sent || snap.GetLost() != lost || sum != lost {
		t.Errorf("sent %d, lost %d, %d by reason; want %d, %d and %d", snap.GetEvents(), snap.GetLost(), sum, sent, lost, lost)
	}
}

// What a slow host leaves no room for is counted, and told after the rest.
func TestSinkCountsWhatDoesNotFit(t *testing.T) {
	s := newSink()
	s.limit = 2
	s.Ready()
	for pid := range int32(5) {
		s.Exit(&confinev1.Exit{Pid: pid})
	}
	// Ready takes a place: one event fits, four don't.
	counts(t, s, 1, 4)
	out := deliverAll(t, s)
	if len(out) != 3 || out[0].GetReady() == nil || out[1].GetExit() == nil || out[2].GetLost().GetCount() != 4 {
		t.Errorf("delivered %v, want ready, an exit and a loss of 4", out)
	}
}

func TestSinkSumsLosses(t *testing.T) {
	s := newSink()
	s.Lost(0, "nothing")
	s.Lost(2, "one reason")
	s.Lost(3, "one reason")
	counts(t, s, 0, 5)
	out := deliverAll(t, s)
	if len(out) != 1 || out[0].GetLost().GetCount() != 5 || out[0].GetLost().GetReason() != "one reason" {
		t.Errorf("delivered %v, want one loss of 5", out)
	}
}

func TestSinkKeepsOrder(t *testing.T) {
	s := newSink()
	for pid := range int32(1000) {
		s.Exec(&confinev1.Exec{Pid: pid})
	}
	out := deliverAll(t, s)
	if len(out) != 1000 {
		t.Fatalf("%d events delivered, want 1000", len(out))
	}
	for i, m := range out {
		if m.GetExec().GetPid() != int32(i) {
			t.Fatalf("event %d is %v", i, m)
		}
	}
}
