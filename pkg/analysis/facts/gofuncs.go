package facts

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"math"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// goFunc is a function of Go's function table.
type goFunc struct {
	addr uint64
	name uint32 // offset of its name in the table, 0 when there is none
}

// goEntries lists the functions of Go's function table, which stands in front of
// line numbers that nobody needs here; false when the table isn't one. text is
// where the code begins: from Go 1.18 on entries are distances from there.
func goEntries(tab []byte, text uint64) ([]goFunc, bool) {
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
	// records is where the functions' records are counted from, names where
	// their names are.
	records, names := uint64(0), uint64(0)
	offsets := false
	switch binary.LittleEndian.Uint32(tab) {
	case object.GoMagic12:
		at = header + ptr
	case object.GoMagic116:
		at, records, names = word(6), word(6), word(2)
	case object.GoMagic118, object.GoMagic120:
		at, size, offsets = word(7), 8, true
		records, names = at, word(3)
	default:
		return nil, false
	}
	if at > uint64(len(tab)) || n > (uint64(len(tab))-at)/size {
		return nil, false
	}
	out := make([]goFunc, n)
	for i := range out {
		e := tab[at+uint64(i)*size:]
		record, entry := uint64(0), ptr
		if offsets {
			out[i].addr, record, entry = text+uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:])), 4
		} else {
			out[i].addr, record = address(e), address(e[ptr:])
		}
		out[i].name = goNameAt(tab, records, record, entry, names)
	}
	return out, true
}

// goNameAt reads, behind the entry in a function's record, where its name is.
func goNameAt(tab []byte, records, record, entry, names uint64) uint32 {
	size := uint64(len(tab))
	if records > size || record > size-records || size-records-record < entry+4 || names > size {
		return 0
	}
	at := uint64(binary.LittleEndian.Uint32(tab[records+record+entry:]))
	if at >= size-names || names+at > math.MaxUint32 {
		return 0
	}
	return uint32(names + at)
}

// maxGoName bounds the names of Go's functions that are kept, in bytes.
const maxGoName = 512

// goNames names the functions that the symbol table doesn't: Go's own table
// stays when that is stripped.
func (o *Object) goNames() {
	for _, g := range o.goTab {
		fn := o.FuncAt(g.addr)
		if g.name == 0 || fn < 0 || o.Facts.Funcs[fn].Start != g.addr {
			continue
		}
		if _, ok := o.Facts.Symbols[uint32(fn)]; ok {
			continue
		}
		if name, ok := o.File.CString(o.File.GoPCLN[0]+uint64(g.name), maxGoName); ok && name != "" {
			o.Facts.Symbols[uint32(fn)] = name
		}
	}
	o.goTab = nil
}

// goFuncs reads function starts from Go's own table.
func (o *Object) goFuncs() {
	text, known := o.findGoText()
	entries, ok := goEntries(o.File.Bytes(o.File.GoPCLN[0], o.File.GoPCLN[1]), text)
	if !ok || !known {
		o.Facts.Warnings = append(o.Facts.Warnings, "unreadable Go function table")
		return
	}
	o.goText, o.goTab = text, entries
	for _, g := range entries {
		a := g.addr
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
