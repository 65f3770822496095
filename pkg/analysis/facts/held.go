package facts

import "slices"

// maxHeld bounds the instructions that are looked at for one address that a
// register holds.
const maxHeld = 4096

// holder is a machine that tells what its code does with an address that it
// keeps in a register which calls leave alone.
type holder interface {
	// holds returns the register that an instruction loads with nothing but an
	// address, or with the pointer in a slot.
	holds(code []byte) (reg uint8, ok bool)
	// use is what an instruction does with a register.
	use(code []byte, reg uint8) regUse
}

// regUse is what an instruction does with a register.
type regUse uint8

const (
	useNone  regUse = iota
	useWrite        // it writes it and doesn't read it
	useRead         // it may read it
	useCall         // it calls or jumps to where it points
)

// heldCalls finds addresses of functions that code keeps in a register only to
// call them there (compilers do so where a function calls an import several
// times), and makes direct calls of them: nobody else gets hold of such an
// address. Go functions are left out, as their calls leave no register alone.
func (o *Object) heldCalls() {
	h, ok := o.mach.(holder)
	if !ok || o.Facts.Go {
		return
	}
	n := len(o.refs)
	w := heldWalk{o: o, h: h, seen: map[uint64]bool{}}
	for i := range n {
		r := &o.refs[i]
		if r.kind != refLoad && r.kind != refAddr && r.kind != refImm {
			continue
		}
		at := o.at(r)
		reg, ok := h.holds(o.File.From(at))
		if !ok {
			continue
		}
		kind, ok := o.calledAs(r)
		if !ok || !w.only(at, reg) {
			continue
		}
		for _, c := range w.calls {
			o.addRef(c, r.to, kind)
		}
		o.refs[i].kind = refHeld
	}
	if len(o.refs) > n {
		o.sortRefs()
	}
}

// calledAs returns what a call of the function is that a reference leads to,
// false when it leads to none, or to a pointer that may change.
func (o *Object) calledAs(r *ref) (refKind, bool) {
	switch r.kind {
	case refAddr, refImm:
		return refJump, o.code(r.to) && o.bound.has(r.to-o.textLo)
	case refLoad:
		if _, ok := o.relocAt[r.to]; !ok {
			return 0, false
		}
		s := o.File.SectionAt(r.to)
		return refSlot, s >= 0 && isGOT(o.File.Sections[s].Name)
	}
	return 0, false
}

// heldWalk follows what a function does with an address that a register holds.
type heldWalk struct {
	o     *Object
	h     holder
	fn    *Func
	reg   uint8
	seen  map[uint64]bool // instructions at which the register may hold it
	calls []uint64        // those that call it, sorted
}

// only reports whether an address that an instruction loads into a register is
// used for nothing but calls, and notes these.
func (w *heldWalk) only(at uint64, reg uint8) bool {
	fi := w.o.FuncAt(at)
	if fi < 0 {
		return false
	}
	w.fn, w.reg, w.calls = &w.o.Facts.Funcs[fi], reg, w.calls[:0]
	clear(w.seen)
	return w.from(at+uint64(w.o.mach.flow(at, w.o.File.From(at)).n)) && len(w.calls) > 0 && w.pads()
}

// from looks at all code that control comes to from an instruction on, until
// the register is written, and reports whether nothing but calls uses it.
func (w *heldWalk) from(at uint64) bool {
	for work := []uint64{at}; len(work) > 0; {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for !w.seen[at] {
			if len(w.seen) >= maxHeld || at < w.fn.Start || at >= w.fn.End {
				return false
			}
			w.seen[at] = true
			code := w.o.File.Bytes(at, w.fn.End-at)
			f := w.o.mach.flow(at, code)
			if f.n == 0 {
				return false
			}
			use := w.h.use(code, w.reg)
			if use == useRead {
				return false
			}
			if use == useWrite {
				break
			}
			if use == useCall {
				i, _ := slices.BinarySearch(w.calls, at)
				w.calls = slices.Insert(w.calls, i, at)
			}
			next := at + uint64(f.n)
			switch f.kind {
			case ctlBranch:
				work = append(work, f.to)
			case ctlJump:
				next = f.to
			case ctlIJump:
				if use != useCall {
					return false // where to isn't known
				}
				next = at
			case ctlReturn:
				return false // the caller's value should have been there
			case ctlTrap:
				next = at
			case ctlCall:
				if !w.o.mayReturn(f.to, 0) {
					next = at
				}
			case ctlICall:
				if next == w.fn.End {
					next = at // it doesn't return: nothing follows
				}
			}
			at = next
		}
	}
	return true
}

// pads is from for the landing pads of exceptions that calls throw while the
// register holds the address: it is still there when control comes to them.
func (w *heldWalk) pads() bool {
	e, ok := w.o.fde(w.fn.Start)
	if !ok {
		return true // nothing can be thrown through it
	}
	pads, ok := w.o.File.Landings(e)
	if !ok {
		return false
	}
	for again := true; again; {
		again = false
		for _, l := range pads {
			if w.seen[l.Pad] || !w.within(l.Start, l.End) {
				continue
			}
			if !w.from(l.Pad) {
				return false
			}
			again = true
		}
	}
	return true
}

// within reports whether the register may hold the address somewhere in a
// range.
func (w *heldWalk) within(start, end uint64) bool {
	for at := range w.seen {
		if at >= start && at < end {
			return true
		}
	}
	return false
}
