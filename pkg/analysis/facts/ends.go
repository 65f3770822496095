package facts

import "slices"

// fallsThrough reports whether control can run past the end of a function. A
// call as the last instruction is one that doesn't return: compilers leave
// nothing behind a call otherwise.
func (o *Object) fallsThrough(fn *Func) bool {
	pos := fn.End
	lo := max(fn.Start, pos-min(pos, 256))
	// Find the last instruction that isn't padding, walking known boundaries.
	for pos > lo {
		at := pos - 1
		for at > lo && !o.bound.has(at-o.textLo) {
			at--
		}
		if at < lo || !o.bound.has(at-o.textLo) {
			return false
		}
		b := o.File.From(at)
		f := o.mach.flow(at, b)
		if f.n == 0 {
			return false
		}
		if at+uint64(f.n) > fn.End {
			return o.straddles(fn, at, f)
		}
		b = b[:fn.End-at]
		if o.mach.padding(b) > 0 {
			pos = at
			continue
		}
		return !f.kind.ends() && !o.mach.restorer(o, at)
	}
	return fn.End-fn.Start <= 256 && pos == fn.Start && fn.End > fn.Start && !o.allPadding(fn)
}

// straddles reports whether the last instruction of a function, at an address,
// leads into the next although that begins in the middle of it: what it begins
// at was taken for a start. The next one is then entered behind the instruction,
// too. A table among the code looks like that as well.
func (o *Object) straddles(fn *Func, at uint64, f flow) bool {
	if f.kind.ends() || o.dataInText(fn.Start) {
		return false
	}
	next := o.FuncAt(at + uint64(f.n))
	if next < 0 || o.Facts.Funcs[next].Start != fn.End {
		return false
	}
	o.entries[uint32(next)] = append(o.entries[uint32(next)], at+uint64(f.n))
	return true
}

// dropPadding takes the way out of functions that hold nothing but padding and
// that nothing enters, so that they don't count as callers of what follows.
func (o *Object) dropPadding() {
	fs := o.Facts.Funcs
	entered := make([]bool, len(fs))
	for i := range fs {
		for _, e := range fs[i].Edges {
			if e.Kind != EdgeFall {
				entered[e.To] = true
			}
		}
	}
	for i := range o.Facts.Regions {
		for _, f := range o.Facts.Regions[i].Funcs {
			entered[f] = true
		}
	}
	for _, f := range o.Facts.Roots {
		entered[f] = true
	}
	for i := range o.Facts.Exports {
		if f := o.Facts.Exports[i].Func; f > 0 {
			entered[f-1] = true
		}
	}
	falls := false // the function before runs on into this one
	for i := range fs {
		into := falls
		falls = len(fs[i].Edges) > 0 && slices.Contains(fs[i].Edges, Edge{uint32(i + 1), EdgeFall})
		if falls && !into && !entered[i] && o.nops(&fs[i]) {
			fs[i].Edges, falls = nil, false
		}
	}
}

// nops reports whether a function is nothing but padding.
func (o *Object) nops(fn *Func) bool {
	b := o.File.Bytes(fn.Start, fn.End-fn.Start)
	for len(b) > 0 {
		n := o.mach.padding(b)
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

func (o *Object) allPadding(fn *Func) bool {
	for _, c := range o.File.Bytes(fn.Start, fn.End-fn.Start) {
		if c != 0xcc && c != 0 {
			return false
		}
	}
	return true
}
