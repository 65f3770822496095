package reach

import "iter"

// lists are many short lists in one piece of memory, one for each of the keys
// from 0 on. What is added last comes last.
type lists[T any] struct {
	// last is, for each key, the place of the last item in all, plus 1; 0 for
	// an empty list. The last item leads on to the first one.
	last []uint32
	all  []item[T]
}

type item[T any] struct {
	value T
	next  uint32
}

// grow makes room for keys below n.
func (l *lists[T]) grow(n uint32) {
	l.last = append(l.last, make([]uint32, int(n)-len(l.last))...)
}

func (l *lists[T]) add(key uint32, v T) {
	at := uint32(len(l.all)) + 1
	next := at
	if last := l.last[key]; last > 0 {
		next = l.all[last-1].next
		l.all[last-1].next = at
	}
	l.all = append(l.all, item[T]{v, next})
	l.last[key] = at
}

func (l *lists[T]) empty(key uint32) bool { return l.last[key] == 0 }

// of lists what was added for a key.
func (l *lists[T]) of(key uint32) iter.Seq[T] {
	return func(yield func(T) bool) {
		last := l.last[key]
		if last == 0 {
			return
		}
		for at := l.all[last-1].next; ; at = l.all[at-1].next {
			if !yield(l.all[at-1].value) || at == last {
				return
			}
		}
	}
}

// has reports whether a value is in the list of a key.
func has[T comparable](l *lists[T], key uint32, v T) bool {
	for w := range l.of(key) {
		if w == v {
			return true
		}
	}
	return false
}
