package facts

import "slices"

// dataTargets returns the sorted addresses outside of code that some
// instruction names: a jump table ends where the next such thing begins.
func dataTargets(o *Object, refs []ref) []uint64 {
	out := make([]uint64, 0, len(refs)/4)
	for i := range refs {
		if r := &refs[i]; r.kind.names() && !o.code(r.to) {
			out = append(out, r.to)
		}
	}
	return uniq(out)
}

// upTo is the first of sorted addresses behind base, at most end.
func upTo(bounds []uint64, base, end uint64) uint64 {
	if i, _ := slices.BinarySearch(bounds, base+1); i < len(bounds) {
		return min(end, bounds[i])
	}
	return end
}

// jumpTable reads a table of code addresses at base, relative (32 bits, to the
// table) or absolute (64 bits, in programs with fixed addresses), and notes
// those that leave the function: compilers move unlikely cases to functions of
// their own ("cold" parts).
func (o *Object) jumpTable(fn *Func, self int, base uint64, bounds []uint64) {
	reg := o.regionAt(base)
	if reg < 0 || o.isGOT(reg) {
		return
	}
	end := upTo(bounds, base, o.Facts.Regions[reg].End)
	leaves := func(t uint64) (int, bool) {
		if !o.code(t) || !o.bound.has(t-o.textLo) {
			return 0, false
		}
		i := o.FuncAt(t)
		return i, i >= 0 && (i == self || !o.stubs(i))
	}
	b := o.File.From(base)
	if uint64(len(b)) > end-base {
		b = b[:end-base]
	}
	target := func(to uint64) bool {
		i, ok := leaves(to)
		if !ok {
			return false
		}
		if i != self {
			fn.edge(i, EdgeTable)
			o.inner(i, to)
		} else {
			o.tables[uint32(self)] = append(o.tables[uint32(self)], to)
		}
		return true
	}
	for _, anchor := range o.anchors(base) {
		for p := 0; p+4 <= len(b); p += 4 {
			if !target(o.distant(anchor, le32(b[p:]))) {
				break
			}
		}
	}
	if o.File.IsPIE {
		return
	}
	for p := 0; p+int(o.File.WordSize()) <= len(b); p += int(o.File.WordSize()) {
		v, _ := o.File.Word(base + uint64(p))
		if !target(v) {
			break
		}
	}
}

// anchors are the addresses that the distances in a table can be counted from:
// its own, and, where that is what code computes addresses from, that of the
// global offset table.
func (o *Object) anchors(base uint64) []uint64 { return append([]uint64{base}, o.gots...) }

// distant is the address at a distance of 32 bits.
func (o *Object) distant(from uint64, by uint32) uint64 {
	to := from + uint64(int64(int32(by)))
	if o.File.WordSize() == 4 {
		return uint64(uint32(to))
	}
	return to
}

// stubs reports whether a function is the procedure linkage table, or one of
// its stubs: no jump table leads there.
func (o *Object) stubs(i int) bool {
	start := o.Facts.Funcs[i].Start
	if _, ok := o.pltSlot(start); ok {
		return true
	}
	return o.mach.pltHead(o.File.From(start))
}
