package agent

import (
	"context"
	"errors"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func text(n int) *confinev1.ConnectRequest {
	return &confinev1.ConnectRequest{RunId: string(make([]byte, n))}
}

func seqs(o *outbox, after uint64) (out []uint64) {
	messages, _ := o.after(after)
	for _, m := range messages {
		out = append(out, m.GetSeq())
	}
	return out
}

func TestOutboxKeepsWhatIsNotAcknowledged(t *testing.T) {
	o := newOutbox()
	for range 5 {
		if err := o.add(t.Context(), text(1)); err != nil {
			t.Fatal(err)
		}
	}
	o.ack(2)
	if got := seqs(o, 0); len(got) != 3 || got[0] != 3 || got[2] != 5 {
		t.Errorf("after ack of 2: %v", got)
	}
	if got := seqs(o, 4); len(got) != 1 || got[0] != 5 {
		t.Errorf("behind 4: %v", got)
	}
	o.ack(1) // said late
	o.ack(99)
	if got := seqs(o, 0); len(got) != 0 || o.bytes != 0 {
		t.Errorf("left %v, %d bytes", got, o.bytes)
	}
}

// TestOutboxIsBounded fills it: a message more waits for room, or for the end
// of its context.
func TestOutboxIsBounded(t *testing.T) {
	for name, size := range map[string]int{"messages": 1, "bytes": outboxBytes / 3} {
		o := newOutbox()
		for len(seqs(o, 0)) < outboxMessages && o.bytes+size <= outboxBytes {
			if err := o.add(t.Context(), text(size)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := o.add(ctx, text(size)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: a full outbox took one more: %v", name, err)
		}
		added := make(chan error)
		go func() { added <- o.add(t.Context(), text(size)) }()
		o.ack(1)
		if err := <-added; err != nil {
			t.Errorf("%s: no room after an acknowledgement: %v", name, err)
		}
	}
}
