package object

// unreadable is the address of tables of landing pads that can't be read.
const unreadable = ^uint64(0)

// lsda reads the pointer to the table of landing pads in an FDE's augmentation
// data, which begin at an address.
func (f *File) lsda(c cie, at uint64) uint64 {
	if c.lsda == ehOmit {
		return 0
	}
	_, at, ok := f.leb(at)
	if !ok {
		return unreadable
	}
	raw, _, ok := f.encoded(c.lsda&0x0f, at, 0)
	if !ok {
		return unreadable
	}
	if raw == 0 {
		return 0
	}
	v, _, ok := f.encoded(c.lsda, at, 0)
	if !ok {
		return unreadable
	}
	return f.words.cut(v)
}

// Landing is where control goes when an exception is thrown by calls between
// Start and End.
type Landing struct{ Start, End, Pad uint64 }

// Landings reads the landing pads of a function, false when that isn't
// possible. The table's form is that of the Itanium C++ ABI's exception
// handling, "Language-Specific Data Area".
func (f *File) Landings(e FDE) (out []Landing, ok bool) {
	if e.LSDA == 0 {
		return nil, true
	}
	p := e.LSDA
	base := e.Start
	enc, p, ok := f.byteAt(p)
	if ok && enc != ehOmit {
		base, p, ok = f.encoded(enc, p, 0)
	}
	if !ok {
		return nil, false
	}
	enc, p, ok = f.byteAt(p)
	if ok && enc != ehOmit { // types
		_, p, ok = f.leb(p)
	}
	if !ok {
		return nil, false
	}
	if enc, p, ok = f.byteAt(p); !ok {
		return nil, false
	}
	size, p, ok := f.leb(p)
	if !ok || size > uint64(len(f.Data)) {
		return nil, false
	}
	for end := p + size; p < end; {
		var v [3]uint64
		for i := range v {
			if v[i], p, ok = f.encoded(enc&0x0f, p, 0); !ok {
				return nil, false
			}
		}
		if _, p, ok = f.leb(p); !ok { // action
			return nil, false
		}
		if v[2] != 0 {
			out = append(out, Landing{e.Start + v[0], e.Start + v[0] + v[1], base + v[2]})
		}
	}
	return out, true
}

func (f *File) byteAt(p uint64) (byte, uint64, bool) {
	b := f.Bytes(p, 1)
	if b == nil {
		return 0, p, false
	}
	return b[0], p + 1, true
}
