package facts

import (
	"math/bits"
	"sort"
)

// intervals cuts the code into functions: unwind ranges as they are, gaps at
// every known start.
func (o *Object) intervals() {
	f := o.File
	var starts []uint64
	for w, set := range o.starts {
		for ; set != 0; set &= set - 1 {
			if a := o.textLo + uint64(w)<<6 + uint64(bits.TrailingZeros64(set)); !o.inFDE(a) {
				starts = append(starts, a)
			}
		}
	}
	cut := func(lo, hi uint64) {
		i := sort.Search(len(starts), func(i int) bool { return starts[i] > lo })
		for lo < hi {
			next := hi
			if i < len(starts) && starts[i] < hi {
				next = starts[i]
			}
			o.Facts.Funcs = append(o.Facts.Funcs, Func{Start: lo, End: next})
			lo = next
			i++
		}
	}
	for _, sp := range o.codeSpans() {
		pos := sp.lo
		i := sort.Search(len(f.FDEs), func(i int) bool { return f.FDEs[i].End > sp.lo })
		for ; i < len(f.FDEs) && f.FDEs[i].Start < sp.hi; i++ {
			e := f.FDEs[i]
			cut(pos, max(pos, e.Start))
			lo := max(e.Start, pos)
			hi := min(e.End, sp.hi)
			if hi > lo {
				o.Facts.Funcs = append(o.Facts.Funcs, Func{Start: lo, End: hi})
				pos = hi
			}
		}
		cut(pos, sp.hi)
	}
	sort.Slice(o.Facts.Funcs, func(i, j int) bool { return o.Facts.Funcs[i].Start < o.Facts.Funcs[j].Start })
}

// tailTargets cuts functions without unwind entries once more, where an
// unconditional jump of another function leads: that is how a function that
// is only ever called last is entered.
func (o *Object) tailTargets() {
	again := false
	for i := range o.refs {
		r := &o.refs[i]
		if r.kind != refJump || o.startsAt(r.to) || o.inFDE(r.to) {
			continue
		}
		if o.mach.flow(o.at(r), o.File.From(o.at(r))).kind != ctlJump {
			continue
		}
		if from, to := o.FuncAt(o.at(r)), o.FuncAt(r.to); from != to && to >= 0 && o.Facts.Funcs[to].Start != r.to {
			o.enter(r.to, true)
			again = true
		}
	}
	if again {
		o.Facts.Funcs = nil
		o.intervals()
	}
}

func (o *Object) inFDE(a uint64) bool {
	fdes := o.File.FDEs
	i := sort.Search(len(fdes), func(i int) bool { return fdes[i].End > a })
	return i < len(fdes) && fdes[i].Start <= a
}

// FuncAt returns the index of the function that holds addr, -1 when none.
func (o *Object) FuncAt(addr uint64) int {
	fs := o.Facts.Funcs
	i := sort.Search(len(fs), func(i int) bool { return fs[i].End > addr })
	if i < len(fs) && fs[i].Start <= addr {
		return i
	}
	return -1
}
