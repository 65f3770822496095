package monitor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// FuzzNeeds reads what an executable says before it is trusted: whatever it
// is, it gets nothing that the host doesn't allow.
func FuzzNeeds(f *testing.F) {
	f.Add([]byte(`{"capabilities":["CAP_BPF","perfmon"]}`))
	f.Add([]byte(`{"capabilities":null}`))
	f.Add([]byte("usage: mine\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		n := parseNeeds(answer)
		for _, allowed := range [][]string{nil, {}, {"CAP_BPF"}} {
			numbers, err := capabilityNumbers(granted(n.Capabilities, allowed))
			if err != nil {
				continue
			}
			if allowed != nil && len(allowed) == 0 && len(numbers) > 0 {
				t.Errorf("%q: got %v where none is allowed", answer, numbers)
			}
			for _, c := range numbers {
				if len(allowed) == 1 && capabilities()[c] != "CAP_BPF" {
					t.Errorf("%q: got %s where CAP_BPF is allowed", answer, capabilities()[c])
				}
			}
		}
	})
}

// FuzzStartProblem explains what a plugin printed instead of its handshake.
func FuzzStartProblem(f *testing.F) {
	f.Add("incompatible API version with plugin. Plugin version: 3, Client versions: [1]")
	f.Add("Unrecognized remote plugin message: \x1b[2J\n\nThis usually means")
	f.Add("error parsing protocol version: x")
	f.Fuzz(func(t *testing.T, text string) {
		if explainStart(errors.New(text), time.Second).Error() == "" && text != "" {
			t.Errorf("%q: no explanation", text)
		}
	})
}

// FuzzMessage hands messages of a plugin to a watch: each event is believed,
// or refused and counted, and what is believed has the size of a real one.
func FuzzMessage(f *testing.F) {
	event := &confinev1.WatchResponse{Event: &confinev1.WatchResponse_Exec{Exec: &confinev1.Exec{Pid: 1, Path: "/a", Nested: []string{"/b"}}}}
	for _, m := range []*confinev1.WatchResponse{
		event,
		{Event: &confinev1.WatchResponse_Batch{Batch: &confinev1.Batch{Events: []*confinev1.WatchResponse{event, {}}}}},
		{Event: &confinev1.WatchResponse_Lost{Lost: &confinev1.Lost{Count: ^uint64(0), Reason: strings.Repeat("x", 600)}}},
		{Event: &confinev1.WatchResponse_Denied{Denied: &confinev1.DeniedCall{Pid: 1, Nr: -1, Args: []uint64{1, 2}}}},
		{Event: &confinev1.WatchResponse_Mapping{Mapping: &confinev1.Mapping{Pid: -1}}},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &confinev1.WatchResponse{}
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		events := m.GetBatch().GetEvents()
		if m.GetBatch() == nil {
			events = []*confinev1.WatchResponse{m}
		}
		losses := 0
		for _, e := range events {
			if e.GetLost() != nil {
				losses++
			}
		}
		w := &Watch{events: make(chan *confinev1.WatchResponse, len(events)+1), guard: newGuard(&confinev1.Scope{})}
		if !w.take(context.Background(), m) {
			t.Fatal("the watch ended")
		}
		if w.seen != uint64(len(events)-losses) || len(w.events)+int(w.refused) != len(events) {
			t.Errorf("of %d events, %d of losses, %d were seen, %d believed and %d refused", len(events), losses, w.seen, len(w.events), w.refused)
		}
		if (w.refused > 0) != (len(w.guard.sentences()) > 0) {
			t.Errorf("%d refused, faults %q", w.refused, w.guard.sentences())
		}
		for range len(w.events) {
			if e := <-w.events; e.GetBatch() != nil || e.GetReady() != nil || proto.Size(e) > 2*maxNested*maxText {
				t.Errorf("believed %v", e)
			}
		}
	})
}
