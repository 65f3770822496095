package facts

import (
	"cmp"
	"slices"
)

// slot is what is known of 8 bytes of the stack, or of 4 when it is narrow.
type slot struct {
	off    int64 // from the stack pointer at entry
	v      val
	narrow bool
}

// stack holds the slots that something was stored to, by their offsets. Copies
// share their slots until one of them changes.
type stack struct {
	list   []slot
	shared bool
}

// share returns a copy.
func (s *stack) share() stack {
	s.shared = true
	return *s
}

// own makes the slots changeable.
func (s *stack) own() {
	if s.shared {
		s.list, s.shared = append(make([]slot, 0, len(s.list)+4), s.list...), false
	}
}

// find returns the position of the first slot at off or above, and whether it
// is at off.
func (s *stack) find(off int64) (int, bool) {
	return slices.BinarySearchFunc(s.list, off, func(a slot, off int64) int { return cmp.Compare(a.off, off) })
}

func (s *stack) set(n slot) {
	s.own()
	if i, ok := s.find(n.off); ok {
		s.list[i] = n
	} else {
		s.list = slices.Insert(s.list, i, n)
	}
}

// forget makes the slots at lo or above unknown.
func (s *stack) forget(lo int64) {
	for i, _ := s.find(lo); i < len(s.list); i++ {
		s.unknown(i)
	}
}

// unknown makes the slot at a position unknown.
func (s *stack) unknown(i int) {
	if !s.list[i].v.top {
		s.own()
		s.list[i].v = top
	}
}

// covered reports whether another slot reaches into the one at off, of which
// something is read.
func (s *stack) covered(off int64) bool {
	for i, _ := s.find(off - 7); i < len(s.list) && s.list[i].off < off; i++ {
		if s.list[i].reaches(off) {
			return true
		}
	}
	return false
}

// reaches reports whether a slot below an offset covers it.
func (n *slot) reaches(off int64) bool { return off-n.off < 4 || !n.narrow }

// merge joins the slots of t into those of s, whose states they are, and
// reports whether s changed.
func (s *state) mergeStack(t *state, join func(v, w val) val) bool {
	a, b := s.stack.list, t.stack.list
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return false
	}
	changed := false
	var out []slot // nil as long as nothing differs from what s has
	add := func(n slot, differs bool) {
		if differs && out == nil {
			out = append(make([]slot, 0, max(len(s.stack.list), len(t.stack.list))), s.stack.list[:len(s.stack.list)-len(a)]...)
		}
		if out != nil {
			out = append(out, n)
		}
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].off < b[0].off:
			n := a[0]
			n.v = join(n.v, t.unwritten(n.off))
			differs := !n.v.equal(a[0].v)
			add(n, differs)
			a, changed = a[1:], changed || differs
		case len(a) == 0 || b[0].off < a[0].off:
			n := b[0]
			u := s.unwritten(n.off)
			n.v = join(u, n.v)
			add(n, true)
			b, changed = b[1:], changed || !n.v.equal(u) || n.narrow
		default:
			n := a[0]
			n.v, n.narrow = join(n.v, b[0].v), n.narrow || b[0].narrow
			differs := !n.v.equal(a[0].v) || n.narrow != a[0].narrow
			add(n, differs)
			a, b, changed = a[1:], b[1:], changed || differs
		}
	}
	if out != nil {
		s.stack = stack{list: out}
	}
	return changed
}
