package reach

import (
	"slices"
	"testing"
)

func TestLists(t *testing.T) {
	const keys = 7
	var l lists[int]
	heads := make([]uint32, keys)
	want := make([][]int, keys)
	for i := range 3 * listChunk {
		k := i * i % (keys - 1)
		l.add(&heads[k], i)
		want[k] = append(want[k], i)
	}
	for k, head := range heads {
		if got := l.of(head); !slices.Equal(got, want[k]) {
			t.Errorf("list %d: %d values, want %d in their order", k, len(got), len(want[k]))
		}
	}
	if !has(&l, heads[0], 0) || has(&l, heads[0], -1) || has(&l, heads[keys-1], 0) {
		t.Error("has is wrong")
	}
	for range l.backward(heads[1]) {
		break // an early end is no error
	}
}
