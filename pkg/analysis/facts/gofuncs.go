package facts

import (
	"encoding/binary"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// goEntries lists the entry addresses in Go's function table, which stands in
// front of the names and line numbers that nobody needs here; false when the
// table isn't one. text is where the code begins: from Go 1.18 on entries are
// distances from there.
func goEntries(tab []byte, text uint64) ([]uint64, bool) {
	const header = 8 // magic, two zeros, instruction quantum, pointer size
	if len(tab) < header+8*8 || tab[7] != 8 {
		return nil, false
	}
	word := func(i uint64) uint64 { return binary.LittleEndian.Uint64(tab[header+8*i:]) }
	n, at, size := word(0), uint64(0), uint64(16)
	switch binary.LittleEndian.Uint32(tab) {
	case object.GoMagic12:
		at = header + 8
	case object.GoMagic116:
		at = word(6)
	case object.GoMagic118, object.GoMagic120:
		at, size = word(7), 8
	default:
		return nil, false
	}
	if at > uint64(len(tab)) || n > (uint64(len(tab))-at)/size {
		return nil, false
	}
	out := make([]uint64, n)
	for i := range out {
		e := tab[at+uint64(i)*size:]
		if size == 8 {
			out[i] = text + uint64(binary.LittleEndian.Uint32(e))
		} else {
			out[i] = binary.LittleEndian.Uint64(e)
		}
	}
	return out, true
}
