package main

import "testing"

// The ring buffer grows with the processors, within bounds, and stays a power
// of two.
func TestRingSize(t *testing.T) {
	for processors, want := range map[int]uint32{1: 8 << 20, 2: 8 << 20, 3: 16 << 20, 4: 16 << 20, 256: 16 << 20} {
		if got := ringSize(processors); got != want {
			t.Errorf("%d processors: %d bytes, want %d", processors, got, want)
		}
	}
}
