package objects

import (
	"fmt"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// content returns something known with a footprint of about size bytes.
func content(name string, size int) *known {
	return &known{sum: name, facts: &facts.Facts{Strings: []string{string(make([]byte, size))}}}
}

func TestMemoryForgetsWhatWasNotUsed(t *testing.T) {
	const size = 1000
	m := NewMemory(10 * (size + 100))
	for i := range 10 {
		m.put(content(fmt.Sprint(i), size))
	}
	if m.get("0") == nil {
		t.Fatal("what fits was forgotten")
	}
	m.put(content("one more", 2*size))
	for name, want := range map[string]bool{"0": true, "1": false, "9": true, "one more": true} {
		if got := m.get(name) != nil; got != want {
			t.Errorf("%s is kept: %v, want %v", name, got, want)
		}
	}
	if m.bytes > m.limit || m.order.Len() != len(m.known) {
		t.Errorf("%d bytes of %d; %d in order, %d known", m.bytes, m.limit, m.order.Len(), len(m.known))
	}
}

func TestMemoryCountsAnswers(t *testing.T) {
	m := NewMemory(10_000)
	k := content("k", 100)
	m.put(k)
	before := m.bytes
	m.answered(k, 500)
	if m.bytes != before+500 {
		t.Errorf("%d bytes, want %d", m.bytes, before+500)
	}
	m.answered(content("k", 100), 500) // another one with the same content isn't the one that is kept
	if m.bytes != before+500 {
		t.Errorf("%d bytes after an answer that isn't kept, want %d", m.bytes, before+500)
	}
	m.answered(k, 20_000)
	if m.get("k") != nil || m.bytes != 0 {
		t.Errorf("what is too large is kept: %d bytes", m.bytes)
	}
}

func TestMemoryRefusesWhatNeedsHalf(t *testing.T) {
	m := NewMemory(1000)
	m.put(content("k", 600))
	if m.get("k") != nil {
		t.Error("it was kept")
	}
}

func TestNoMemory(t *testing.T) {
	var m *Memory
	k := content("k", 1)
	m.put(k)
	m.answered(k, 1)
	if m.get("k") != nil {
		t.Error("no memory keeps something")
	}
}
