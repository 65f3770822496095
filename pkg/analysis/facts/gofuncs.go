package facts

import (
	"cmp"
	"debug/elf"
	"encoding/binary"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// goEntries lists the entry addresses in Go's function table, which stands in
// front of the names and line numbers that nobody needs here; false when the
// table isn't one. text is where the code begins: from Go 1.18 on entries are
// distances from there.
func goEntries(tab []byte, text uint64) ([]uint64, bool) {
	const header = 8 // magic, two zeros, instruction quantum, pointer size
	if len(tab) < header+8*8 || tab[7] != 8 && tab[7] != 4 {
		return nil, false
	}
	ptr := uint64(tab[7])
	address := func(b []byte) uint64 {
		if ptr == 4 {
			return uint64(binary.LittleEndian.Uint32(b))
		}
		return binary.LittleEndian.Uint64(b)
	}
	word := func(i uint64) uint64 { return address(tab[header+ptr*i:]) }
	n, at, size := word(0), uint64(0), 2*ptr
	offsets := false
	switch binary.LittleEndian.Uint32(tab) {
	case object.GoMagic12:
		at = header + ptr
	case object.GoMagic116:
		at = word(6)
	case object.GoMagic118, object.GoMagic120:
		at, size, offsets = word(7), 8, true
	default:
		return nil, false
	}
	if at > uint64(len(tab)) || n > (uint64(len(tab))-at)/size {
		return nil, false
	}
	out := make([]uint64, n)
	for i := range out {
		e := tab[at+uint64(i)*size:]
		if offsets {
			out[i] = text + uint64(binary.LittleEndian.Uint32(e))
		} else {
			out[i] = address(e)
		}
	}
	return out, true
}

// goFuncs reads function starts from Go's own table.
func (o *Object) goFuncs() {
	text, known := o.findGoText()
	entries, ok := goEntries(o.File.Bytes(o.File.GoPCLN[0], o.File.GoPCLN[1]), text)
	if !ok || !known {
		o.Facts.Warnings = append(o.Facts.Warnings, "unreadable Go function table")
		return
	}
	o.goText = text
	for _, a := range entries {
		if o.code(a) {
			o.enter(a, true)
			o.goSpan.lo, o.goSpan.hi = min(cmp.Or(o.goSpan.lo, a), a), max(o.goSpan.hi, a)
		}
	}
}

// findGoText tells where the code of a Go program begins, as its tables count.
// With code of other languages in front, that isn't where the section begins.
// Before Go 1.26 the table has it; a symbol or the module's data (runtime,
// moduledata) have it always, but symbols may be stripped.
func (o *Object) findGoText() (uint64, bool) {
	textStart := 8 + 2*o.File.WordSize() // in the header (runtime, pcHeader), from Go 1.18 on
	if m := o.magic(); m == object.GoMagic118 || m == object.GoMagic120 {
		if a, ok := o.addressIn(o.File.GoPCLN[0] + textStart); ok && o.code(a) {
			return a, true
		}
	}
	for _, tab := range [][]object.Symbol{o.File.Symtab, o.File.DynSyms} {
		for i := range tab {
			if tab[i].Name == "runtime.text" && tab[i].Defined {
				return tab[i].Addr, true
			}
		}
	}
	return o.goModule()
}

// magic is the number that Go's function table begins with, 0 when it isn't there.
func (o *Object) magic() uint32 {
	if b := o.File.Bytes(o.File.GoPCLN[0], 4); b != nil {
		return le32(b)
	}
	return 0
}

// goModule reads the begin of the code from the module's data, which begins with
// the address of the function table. Behind that lie six slices, five of the
// table itself (the names first), the address of an index, the first and the last
// address, and the begin of the code.
func (o *Object) goModule() (uint64, bool) {
	word := o.File.WordSize()
	names, text := word, word+6*3*word+3*word
	tab := o.File.GoPCLN
	read := func(at uint64) (uint64, bool) {
		if a, ok := o.addressIn(at); !ok || a != tab[0] {
			return 0, false
		}
		if a, ok := o.addressIn(at + names); !ok || a < tab[0] || a-tab[0] > tab[1] {
			return 0, false
		}
		a, ok := o.addressIn(at + text)
		return a, ok && o.code(a)
	}
	for i := range o.File.Relocs {
		if r := &o.File.Relocs[i]; r.Type == object.RRelative && r.Addend == tab[0] {
			if a, ok := read(r.Addr); ok {
				return a, true
			}
		}
	}
	for i := range o.File.Segments {
		s := &o.File.Segments[i]
		if s.Flags&elf.PF_X != 0 {
			continue
		}
		b := o.File.From(s.Addr)
		for p := -s.Addr & (word - 1); p+word <= uint64(len(b)); p += word {
			if v, ok := o.File.Word(s.Addr + p); !ok || v != tab[0] {
				continue
			}
			if a, ok := read(s.Addr + p); ok {
				return a, true
			}
		}
	}
	return 0, false
}

// addressIn reads an address in data, which a relocation may supply.
func (o *Object) addressIn(at uint64) (uint64, bool) {
	if i, ok := o.relocAt[at]; ok && o.File.Relocs[i].Type == object.RRelative {
		return o.File.Relocs[i].Addend, true
	}
	return o.File.Word(at)
}
