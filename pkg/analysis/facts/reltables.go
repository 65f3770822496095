package facts

import (
	"slices"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// Compilers and assemblers keep distances to functions in tables, so that they
// need no relocations: from the table's start (lookup tables of position-
// independent code, tables among hand-written code), or from the word's own
// place (relative pointers of Swift and of relative vtables). Who computes the
// address of such a table, or jumps there, may be another function than the one
// that names it. So every word behind an address that code names counts that
// leads in either way to the start of a function; and, where there are no
// unwind ranges to tell what a function is, a run of words from that address on
// that lead to instructions.

// minRun is the number of words that make a table of what aren't known to be
// functions: a single one is too likely to be something else.
const minRun = 2

// entry is one word of a table: where it leads, and where it would lead as a
// distance from the start of the table.
type entry struct{ to, near uint64 }

// maxTable bounds the words that are looked at behind one address.
const maxTable = 1 << 16

// relativeTables adds a reference to every such target, at the instruction that
// names the table, and reports whether code is entered that wasn't known to be.
func (o *Object) relativeTables() (again bool) {
	o.named = o.namedAddresses()
	computed := map[int]bool{}
	for _, at := range o.indir {
		computed[o.FuncAt(at)] = true
	}
	o.tabled, o.objects = map[uint64][]entry{}, map[uint64][]uint64{}
	var found []ref
	for i := range o.refs {
		r := &o.refs[i]
		if !r.kind.names() || o.inGo(o.at(r)) {
			continue
		}
		targets := o.relativeTable(r.to)
		if len(targets) == 0 {
			continue
		}
		self := o.FuncAt(o.at(r))
		for _, e := range targets {
			t := e.to
			to := o.FuncAt(t)
			if computed[self] && e.near != t && o.FuncAt(e.near) == self {
				continue // its own jump table, misread
			}
			if to == self && computed[self] && !o.code(r.to) || to < 0 {
				continue // its own jump table
			}
			start := o.Facts.Funcs[to].Start == t
			if !start && computed[self] && !o.code(r.to) {
				continue // a jump table that leaves the function
			}
			found = append(found, ref{t, r.off, refAddr})
			if to != self && !start && !o.startsAt(t) {
				o.enter(t, true)
				again = true
			}
		}
	}
	for i := range o.File.Relocs {
		if r := &o.File.Relocs[i]; r.Type == object.RRelative && !o.code(r.Addend) {
			for _, e := range o.relativeTable(r.Addend) {
				t := e.to
				if to := o.FuncAt(t); to >= 0 && o.Facts.Funcs[to].Start != t && !o.startsAt(t) {
					o.enter(t, true)
					again = true
				}
			}
		}
	}
	if len(found) == 0 {
		return again
	}
	o.refs = append(o.refs, found...)
	slices.SortStableFunc(o.refs, byOffset)
	return again
}

// inGo reports whether code at an address was made by Go's compiler or
// assembler, which make no such tables: what looks like one in the descriptions
// of types, of which large programs have many, is none.
func (o *Object) inGo(at uint64) bool {
	return at >= o.goSpan.lo && at < o.goSpan.hi && !o.inFDE(at)
}

// namedAddresses returns the sorted addresses that some instruction names: a
// table ends where the next such thing begins.
func (o *Object) namedAddresses() []uint64 {
	out := make([]uint64, 0, len(o.refs)/4)
	for i := range o.refs {
		if r := &o.refs[i]; r.kind.names() {
			out = append(out, r.to)
		}
	}
	for i := range o.File.Relocs {
		if r := &o.File.Relocs[i]; r.Type == object.RRelative {
			out = append(out, r.Addend)
		}
	}
	if !o.File.IsPIE {
		for _, s := range o.File.Sections {
			if !s.Exec && !s.NoBits && !linkers(s.Name) {
				out = o.dataWords(out, s)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// dataWords appends the aligned words of a section that are addresses of data.
func (o *Object) dataWords(out []uint64, s object.Section) []uint64 {
	w := o.File.WordSize()
	for a := (s.Addr + w - 1) &^ (w - 1); a+w <= s.Addr+s.Size; a += w {
		if v, ok := o.File.Word(a); ok && v >= 4096 && o.File.InImage(v) && !o.code(v) {
			out = append(out, v)
		}
	}
	return out
}

// relativeTable returns where the words of a table at base lead; each base is
// looked at once.
func (o *Object) relativeTable(base uint64) []entry {
	t, ok := o.tabled[base]
	if !ok {
		t = o.readTable(base, o.named)
		o.tabled[base] = t
		if d := o.readObjects(base, o.named); len(d) > 0 {
			o.objects[base] = d
		}
	}
	return t
}

func (o *Object) readTable(base uint64, bounds []uint64) []entry {
	s := o.File.SectionAt(base)
	if s < 0 || o.File.Sections[s].NoBits || linkers(o.File.Sections[s].Name) {
		return nil
	}
	if o.code(base) && o.inFDE(base) {
		return nil // compilers' own code
	}
	end := upTo(bounds, base, o.File.Sections[s].Addr+o.File.Sections[s].Size)
	b := o.File.Bytes(base, end-base)
	if len(b) > maxTable*4 {
		b = b[:maxTable*4]
	}
	if o.code(base) {
		return o.tableInText(base, b)
	}
	var out []entry
	for _, anchor := range o.anchors(base) {
		out = append(out, o.tableFrom(anchor, base, b)...)
	}
	return out
}

// tableFrom reads a table whose words are distances from an anchor, or from
// their own places.
func (o *Object) tableFrom(anchor, base uint64, b []byte) []entry {
	var out, weak []entry
	run := true
	for p := 0; p+4 <= len(b); p += 4 {
		w := le32(b[p:])
		near, own := o.distant(anchor, w), o.distant(base+uint64(p), w)
		if to := uint64(int64(int32(w))); !o.File.IsPIE && o.File.WordSize() == 8 && o.functionStart(to) { // a 32-bit pointer
			out = append(out, entry{to, to})
		}
		switch {
		case o.functionStart(near):
			out = append(out, entry{near, near})
			weak = append(weak, entry{near, near})
		case run && o.unbounded(near):
			weak = append(weak, entry{near, near})
		default:
			run = false
			if p > 0 && o.functionStart(own) && !o.offset(w) {
				out = append(out, entry{own, near})
			}
		}
	}
	if len(weak) >= minRun {
		out = append(out, weak...)
	}
	return out
}

// readObjects returns where the words at base lead as distances from there, if
// there are two or more that lead to data: to what may hold pointers, and to
// texts.
func (o *Object) readObjects(base uint64, bounds []uint64) []uint64 {
	s := o.File.SectionAt(base)
	if s < 0 || base&3 != 0 {
		return nil
	}
	sec := &o.File.Sections[s]
	if sec.NoBits || sec.Exec || sec.Write || linkers(sec.Name) {
		return nil
	}
	end := upTo(bounds, base, sec.Addr+sec.Size)
	b := o.File.Bytes(base, end-base)
	if len(b) > maxTable*4 {
		b = b[:maxTable*4]
	}
	var out []uint64
	run := 0
	for ; run*4+4 <= len(b); run++ {
		to := o.distant(base, le32(b[run*4:]))
		if to >= base && to < end {
			break // distances lead out of the table
		}
		t := o.File.SectionAt(to)
		if t < 0 || o.File.Sections[t].Exec || linkers(o.File.Sections[t].Name) {
			break
		}
		if o.File.Sections[t].Write {
			out = append(out, to)
		} else if before := o.File.Bytes(to-1, 1); before != nil && before[0] == 0 {
			out = append(out, to)
		}
	}
	if run < minRun {
		return nil
	}
	return out
}

// offset reports whether a word can be the distance of code from the global
// offset table, by which 32-bit code keeps what 64-bit code keeps by distances
// from the word's own place.
func (o *Object) offset(w uint32) bool {
	for _, got := range o.gots {
		if to := o.distant(got, w); o.code(to) && o.bound.has(to-o.textLo) {
			return true
		}
	}
	return false
}

// tableInText reads a table among hand-written code, which ends before the
// first of its targets.
func (o *Object) tableInText(base uint64, b []byte) []entry {
	var out []entry
	end := ^uint64(0)
	for p := 0; p+4 <= len(b); p += 4 {
		at := base + uint64(p)
		if at >= end {
			break
		}
		t := base + uint64(int64(int32(le32(b[p:]))))
		if t >= base && t < at+4 || !o.functionStart(t) && !o.unbounded(t) {
			break
		}
		out = append(out, entry{t, t})
		if t > base {
			end = min(end, t)
		}
	}
	if len(out) < minRun || slices.ContainsFunc(out, func(e entry) bool { return e.to >= base && e.to < base+4*uint64(len(out)) }) {
		return nil
	}
	return out
}

// functionStart reports whether a function begins at an address.
func (o *Object) functionStart(t uint64) bool {
	if t < o.textLo || t >= o.textHi || !o.bound.has(t-o.textLo) || !o.code(t) {
		return false
	}
	i := o.FuncAt(t)
	return i >= 0 && o.Facts.Funcs[i].Start == t && (o.inFDE(t) || o.startsAt(t))
}

// unbounded reports whether an address can be that of an instruction of code
// without unwind ranges.
func (o *Object) unbounded(t uint64) bool {
	return t >= o.textLo && t < o.textHi && o.bound.has(t-o.textLo) && o.code(t) && !o.inFDE(t) && o.plausible(t)
}

// linkers reports whether a section holds tables for the linker, the loader or
// the unwinder, that code doesn't call by.
func linkers(name string) bool {
	switch name {
	case ".got", ".got.plt", ".eh_frame", ".eh_frame_hdr", ".gcc_except_table", ".gopclntab", ".dynsym", ".dynstr", ".hash", ".gnu.hash", ".note.gnu.build-id":
		return true
	}
	return false
}
