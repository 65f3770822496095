package facts

import "slices"

// maxQuick bounds the instructions that are looked at before a call.
const maxQuick = 32

// moveKind says what an instruction does to the general registers.
type moveKind uint8

const (
	moveUnknown moveKind = iota // it can't be told
	moveNone                    // it writes none but the stack pointer
	moveConst                   // dst becomes imm
	moveCopy                    // the lower half of dst becomes that of src
	moveAny                     // dst becomes what nothing here knows
	moveOther                   // dst, and no other, becomes something
)

// move is what one instruction does to the general registers.
type move struct {
	kind     moveKind
	dst, src uint8
	imm      int64
}

// quick evaluates what a call passes where straight code before it says so,
// which is most often the case and saves running the whole function. Answers
// are sorted by their places; what has none can be anything where all is known,
// and is still to be looked for elsewhere.
func (o *Object) quick(fi uint32, c callSite, locs []Loc) (answers []Arg, known bool) {
	mach, ok := o.mach.(mover)
	if !ok {
		return nil, false
	}
	a := o.mach.abi()
	left := map[uint8][]Loc{} // registers whose values are asked for; locations they stand for
	for _, l := range locs {
		if int(l) >= a.regs || !slices.Contains(a.clobbered, uint8(l)) {
			return nil, false
		}
		left[uint8(l)] = append(left[uint8(l)], l)
	}
	fn := &o.Facts.Funcs[fi]
	at := c.at
	known = true
	for range maxQuick {
		if len(left) == 0 {
			return sortedArgs(answers), known
		}
		if at == fn.Start || o.joins(fi, at) {
			return sortedArgs(answers), false
		}
		p, f := o.previous(fn, at)
		if f.n == 0 {
			return sortedArgs(answers), false
		}
		code := o.File.Bytes(p, at-p)
		at = p
		switch f.kind {
		case ctlCall, ctlICall:
			// The callee may have changed what the convention lets it.
			for r := range left {
				if !slices.Contains(a.clobbered, r) {
					return sortedArgs(answers), false
				}
			}
			return sortedArgs(answers), known
		case ctlNext:
		case ctlBranch:
			continue
		default:
			return sortedArgs(answers), false
		}
		m := mach.move(code)
		if m.kind == moveNone {
			continue
		}
		if m.kind == moveUnknown {
			return sortedArgs(answers), false
		}
		list, asked := left[m.dst]
		if !asked {
			continue
		}
		switch m.kind {
		case moveConst:
			for _, l := range list {
				answers = append(answers, Arg{At: uint16(l), Values: []uint32{uint32(m.imm)}})
			}
			delete(left, m.dst)
		case moveAny:
			delete(left, m.dst)
		case moveCopy:
			delete(left, m.dst)
			left[m.src] = append(left[m.src], list...)
		default:
			delete(left, m.dst)
			known = false
		}
	}
	return sortedArgs(answers), false
}

func sortedArgs(list []Arg) []Arg {
	slices.SortFunc(list, func(a, b Arg) int { return int(a.At) - int(b.At) })
	return list
}

// joins reports whether control may come to an instruction from elsewhere than
// the one before.
func (o *Object) joins(fi uint32, at uint64) bool {
	if o.isTarget(at) {
		return true
	}
	_, table := slices.BinarySearch(o.tables[fi], at)
	_, entry := slices.BinarySearch(o.entries[fi], at)
	return table || entry
}

// quickly answers what straight code tells of some calls, and returns what is
// still to be asked.
func (o *Object) quickly(c uint32, a *asking) (answers []Arg, known bool) {
	if len(a.sites) == 0 {
		return nil, true
	}
	for i, s := range a.sites {
		got, ok := o.quick(c, s, a.locs)
		if !ok {
			return nil, false
		}
		if i == 0 {
			answers = got
		} else {
			answers = meet(answers, got)
		}
	}
	return answers, true
}
