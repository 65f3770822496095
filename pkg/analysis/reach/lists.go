package reach

import (
	"iter"
	"slices"
)

// listChunk is how many items of lists lie together; a power of 2.
const listChunk = 1 << 12

// lists are many short lists in few pieces of memory. Whoever has a list keeps
// its head: the number of its last item, 0 for an empty list.
type lists[T any] struct {
	chunks [][]item[T]
	n      uint32 // of the items; they are numbered from 1 on
}

type item[T any] struct {
	value  T
	before uint32
}

func (l *lists[T]) at(n uint32) *item[T] { return &l.chunks[n/listChunk][n%listChunk] }

func (l *lists[T]) add(head *uint32, v T) {
	l.n++
	if int(l.n/listChunk) >= len(l.chunks) {
		l.chunks = append(l.chunks, make([]item[T], listChunk))
	}
	*l.at(l.n) = item[T]{v, *head}
	*head = l.n
}

// backward yields what a list has, the last one first.
func (l *lists[T]) backward(head uint32) iter.Seq[T] {
	return func(yield func(T) bool) {
		for n := head; n > 0 && yield(l.at(n).value); {
			n = l.at(n).before
		}
	}
}

// of lists what was added, in that order.
func (l *lists[T]) of(head uint32) []T {
	out := slices.Collect(l.backward(head))
	slices.Reverse(out)
	return out
}

// has reports whether a value is in a list.
func has[T comparable](l *lists[T], head uint32, v T) bool {
	for w := range l.backward(head) {
		if w == v {
			return true
		}
	}
	return false
}
