package facts

import "slices"

// Generated and hand-written code may be entered at distances from an address
// that is kept elsewhere, by tables of any form: V8 has all its built-in
// functions in one piece of code without unwind entries, gives away where it
// begins, and adds what structures in data say. Neither the additions nor the
// tables can be told from others. What can be told is code that is there although
// nothing known enters it: whoever gets hold of an address in the same gap between
// unwind ranges counts as entering it.

// bases makes these edges. All that is lost in a gap is reached through the
// first of it, so that there are few.
func (o *Object) bases() {
	if o.Facts.Go || len(o.File.FDEs) == 0 {
		return // all functions are roots, or nothing tells a gap
	}
	known := o.accounted()
	fs := o.Facts.Funcs
	hubs := map[int]int{} // of functions in gaps: the first lost one there
	for lo, hi := 0, 0; lo < len(fs); lo = hi {
		hub := -1
		for hi = lo; hi < len(fs) && o.unwindless(hi) && (hi == lo || fs[hi-1].End == fs[hi].Start); hi++ {
			if known[hi] && len(o.orphans(hi)) == 0 || o.idle(hi) {
				continue
			}
			if hub < 0 {
				hub = hi
			} else {
				fs[hub].edge(hi, EdgeRef)
			}
		}
		if hub >= 0 {
			fs[hub].compact()
		}
		for i := lo; i < hi && hub >= 0; i++ {
			hubs[i] = hub
		}
		hi = max(hi, lo+1)
	}
	if len(hubs) > 0 {
		o.holders(hubs)
	}
}

// unwindless reports whether a function has no unwind entry.
func (o *Object) unwindless(i int) bool { return !o.inFDE(o.Facts.Funcs[i].Start) }

// idle reports whether what counts as a function can't be one that is entered:
// padding, stubs of imports, a table.
func (o *Object) idle(i int) bool {
	fn := &o.Facts.Funcs[i]
	return o.nops(fn) || o.stubs(i) || o.dataInText(fn.Start) || !o.looksLikeCode(fn.Start)
}

// orphanAlign is the alignment of code that something may enter although nothing
// shows that, where no symbols tell functions apart: compilers and assemblers
// align what begins behind the end of other code.
const orphanAlign = 16

// orphans returns the addresses in a function without unwind entry, behind its
// start, where code seems to begin that nothing leads to: behind the end of other
// code, and behind padding.
func (o *Object) orphans(i int) []uint64 {
	fn := &o.Facts.Funcs[i]
	var out []uint64
	var before control // of the last instruction that isn't padding
	padded := false
	for at := fn.Start; at < fn.End; {
		b := o.File.Bytes(at, fn.End-at)
		f := o.mach.flow(at, b)
		switch {
		case before == ctlNext && f.kind == ctlNext:
		case o.mach.padding(b) > 0:
			padded = true
			if f.kind.ends() {
				before = f.kind
			}
		default:
			call := before == ctlCall || before == ctlICall
			if before.ends() && (padded || !call) && o.orphan(i, at) {
				out = append(out, at)
			}
			before, padded = f.kind, false
		}
		at += uint64(max(f.n, o.mach.abi().step))
	}
	return out
}

// orphan reports whether code may begin at an address inside of a function to
// which no jump and no table leads.
func (o *Object) orphan(i int, at uint64) bool {
	if at%orphanAlign != 0 || o.isTarget(at) || slices.Contains(o.tables[uint32(i)], at) || slices.Contains(o.entries[uint32(i)], at) {
		return false
	}
	return o.plausible(at) && o.looksLikeCode(at)
}

// accounted tells of each function whether some way is known into it: everything
// with an unwind entry counts as entered.
func (o *Object) accounted() []bool {
	fs := o.Facts.Funcs
	known := make([]bool, len(fs))
	var work []uint32
	enter := func(i uint32) {
		if !known[i] {
			known[i] = true
			work = append(work, i)
		}
	}
	for i := range fs {
		if !o.unwindless(i) {
			enter(uint32(i))
		}
	}
	if e := o.Facts.Entry; e > 0 {
		enter(e - 1)
	}
	for _, list := range [][]uint32{o.Facts.Roots, o.Facts.Held} {
		for _, i := range list {
			enter(i)
		}
	}
	for i := range o.Facts.Exports {
		if f := o.Facts.Exports[i].Func; f > 0 {
			enter(f - 1)
		}
	}
	for i := range o.Facts.Regions {
		for _, f := range o.Facts.Regions[i].Funcs {
			enter(f)
		}
	}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		for _, e := range fs[i].Edges {
			enter(e.To)
		}
	}
	return known
}

// holders has those who hold an address in a gap reach what is lost there.
func (o *Object) holders(hubs map[int]int) {
	fs := o.Facts.Funcs
	changed := map[int]bool{}
	hold := func(by, hub int) {
		if by >= 0 && by != hub {
			fs[by].edge(hub, EdgeRef)
			changed[by] = true
		}
	}
	for i := range o.refs {
		r := &o.refs[i]
		if !r.kind.names() || r.to < o.textLo || r.to >= o.textHi {
			continue
		}
		if hub, ok := hubs[o.FuncAt(r.to)]; ok {
			hold(o.FuncAt(o.at(r)), hub)
		}
	}
	for i := range o.Facts.Exports {
		f := int(o.Facts.Exports[i].Func) - 1
		if hub, ok := hubs[f]; ok {
			hold(f, hub)
		}
	}
	for i := range changed {
		fs[i].compact()
	}
	for i := range o.Facts.Regions {
		g := &o.Facts.Regions[i]
		n := len(g.Funcs)
		for _, f := range g.Funcs[:n] {
			if hub, ok := hubs[int(f)]; ok {
				g.Funcs = append(g.Funcs, uint32(hub))
			}
		}
		if len(g.Funcs) > n {
			g.Funcs = uniq(g.Funcs)
		}
	}
}
