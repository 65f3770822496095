package facts

// nearLimit bounds the instructions before a place that are looked at first.
const nearLimit = 48

// near returns the state before an instruction of a function as the straight
// code before it tells, whatever was the case where that begins: what is known
// in it holds on every way there. Most arguments are set so near to where they
// are used that the rest of the function needs not be looked at.
func (o *Object) near(fi uint32, a uint64) *state {
	code := o.File.From(a)
	n := o.mach.flow(a, code).n
	start := o.nearStart(fi, a)
	unknown := unknownState(o.mach.abi())
	if n == 0 || start == a {
		return unknown
	}
	it := &interp{
		o: o, fn: &Func{Start: start, End: a + uint64(n)},
		in: map[uint64]*state{start: unknown}, want: map[uint64]*state{a: nil}, queued: map[uint64]bool{}, visits: map[uint64]int{},
	}
	o.mach.block(it, start)
	if s := it.want[a]; s != nil && !it.failed {
		return s
	}
	return unknown
}

// knows reports whether the values of some locations of a callee are known
// before a call or jump.
func (s *state) knows(locs []Loc, call bool) bool {
	for _, l := range locs {
		if v := s.at(l, call); v.top || v.bottom() {
			return false
		}
	}
	return true
}

// nearStart walks back from an instruction to the first one of the straight
// code before it, which control can enter at its start only.
func (o *Object) nearStart(fi uint32, a uint64) uint64 {
	fn := &o.Facts.Funcs[fi]
	start := a
	for range nearLimit {
		if o.joins(fi, start) {
			break
		}
		p, f := o.previous(fn, start)
		if f.n == 0 || f.kind.ends() && f.kind != ctlCall && f.kind != ctlICall {
			break
		}
		start = p
	}
	return start
}
