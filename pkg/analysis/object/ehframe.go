package object

import "sort"

// DWARF exception header encodings (LSB Core, "DWARF Exception Header
// Encoding").
const (
	ehAbsPtr  = 0x00
	ehULEB    = 0x01
	ehUData2  = 0x02
	ehUData4  = 0x03
	ehUData8  = 0x04
	ehSLEB    = 0x09
	ehSData2  = 0x0a
	ehSData4  = 0x0b
	ehSData8  = 0x0c
	ehPCRel   = 0x10
	ehDataRel = 0x30
	ehOmit    = 0xff
)

// ehFrame collects the ranges of all frame description entries. It walks
// .eh_frame from its start as an unwinder without a header would, so that it
// needs only the address, taken from .eh_frame_hdr or the section.
func (f *File) ehFrame() {
	start := uint64(0)
	if hdr, ok := f.dyn[ehFrameHdrTag]; ok {
		b := f.Bytes(hdr, 4)
		if b != nil && b[0] == 1 {
			if v, _, ok := f.encoded(b[1], hdr+4, hdr); ok {
				start = f.words.cut(v)
			}
		}
	}
	size := uint64(1 << 62)
	for _, s := range f.Sections {
		if s.Name == ".eh_frame" && f.HasSections {
			start, size = s.Addr, s.Size
		}
	}
	if start == 0 {
		return
	}
	cies := map[uint64]cie{} // by address
	p, end := start, start+size
	limit := len(f.Data)/8 + 1
	for n := 0; p < end && n < limit; n++ {
		b := f.Bytes(p, 4)
		if b == nil {
			break
		}
		length, body := uint64(le.Uint32(b)), p+4
		if length == 0 {
			break
		}
		if length == 0xffffffff {
			v, ok := f.U64(p + 4)
			if !ok {
				break
			}
			length, body = v, p+12
		}
		next := body + length
		if next <= p {
			break
		}
		idb := f.Bytes(body, 4)
		if idb == nil {
			break
		}
		id := le.Uint32(idb)
		if id != 0 {
			addr := body - uint64(id)
			c, ok := cies[addr]
			if !ok {
				c, ok = f.cie(addr)
				if !ok {
					f.warn("unreadable unwind entry at %#x", p)
				}
				cies[addr] = c
			}
			if c.pointers != ehOmit {
				if pc, at, ok := f.encoded(c.pointers, body+4, 0); ok {
					pc = f.words.cut(pc)
					if n, at, ok := f.encoded(c.pointers&0x0f, at, 0); ok && n > 0 && pc+n > pc && f.InExec(pc) {
						f.FDEs = append(f.FDEs, FDE{pc, pc + n, f.lsda(c, at)})
					}
				}
			}
		}
		p = next
	}
	sort.Slice(f.FDEs, func(i, j int) bool {
		a, b := f.FDEs[i], f.FDEs[j]
		return a.Start < b.Start || a.Start == b.Start && a.End > b.End
	})
	out := f.FDEs[:0]
	for _, e := range f.FDEs {
		if n := len(out); n > 0 {
			if e.Start >= out[n-1].Start && e.End <= out[n-1].End && e.Start == out[n-1].Start {
				continue
			}
			if e.Start < out[n-1].End {
				out[n-1].End = e.Start
			}
		}
		out = append(out, e)
	}
	f.FDEs = out
}

// cie is what a common information entry says of its FDEs: how their pointers
// are encoded, and those to the tables of landing pads, ehOmit when there are
// none.
type cie struct{ pointers, lsda byte }

// cie reads a common information entry.
func (f *File) cie(addr uint64) (cie, bool) {
	none := cie{ehOmit, ehOmit}
	b := f.Bytes(addr, 4)
	if b == nil {
		return none, false
	}
	p := addr + 8
	if le.Uint32(b) == 0xffffffff {
		p += 8
	}
	vb := f.Bytes(p, 1)
	aug, ok := f.CString(p+1, 64)
	if vb == nil || !ok {
		return none, false
	}
	p += 2 + uint64(len(aug))
	if _, p, ok = f.leb(p); !ok { // code alignment
		return none, false
	}
	if _, p, ok = f.leb(p); !ok { // data alignment
		return none, false
	}
	if vb[0] == 1 {
		p++
	} else if _, p, ok = f.leb(p); !ok {
		return none, false
	}
	out := cie{ehAbsPtr, ehOmit}
	if aug == "" {
		return out, true
	}
	if aug[0] != 'z' {
		return none, false
	}
	if _, p, ok = f.leb(p); !ok {
		return none, false
	}
	pointers := false
	for _, c := range aug[1:] {
		if c == 'S' || c == 'B' {
			continue
		}
		b := f.Bytes(p, 1)
		if b == nil {
			return none, false
		}
		p++
		switch c {
		case 'R':
			out.pointers, pointers = b[0], true
		case 'L':
			out.lsda = b[0]
		case 'P':
			if _, p, ok = f.encoded(b[0], p, 0); !ok {
				return none, false
			}
		default:
			if !pointers {
				return none, false
			}
			out.lsda = ehOmit - 1 // no encoding: what follows isn't known
			return out, true
		}
	}
	return out, true
}

func (f *File) leb(p uint64) (uint64, uint64, bool) {
	v := uint64(0)
	for shift := uint(0); shift < 70; shift += 7 {
		b := f.Bytes(p, 1)
		if b == nil {
			return 0, p, false
		}
		p++
		if shift < 64 {
			v |= uint64(b[0]&0x7f) << shift
		}
		if b[0]&0x80 == 0 {
			return v, p, true
		}
	}
	return 0, p, false
}

// encoded reads one encoded pointer at p; it returns the value and the address
// behind it.
func (f *File) encoded(enc byte, p, data uint64) (uint64, uint64, bool) {
	if enc == ehOmit {
		return 0, p, false
	}
	at := p
	var v uint64
	switch enc & 0x0f {
	case ehAbsPtr:
		var ok bool
		if v, ok = f.Word(p); !ok {
			return 0, p, false
		}
		p += f.words.word
	case ehUData8, ehSData8:
		b := f.Bytes(p, 8)
		if b == nil {
			return 0, p, false
		}
		v, p = le.Uint64(b), p+8
	case ehUData4, ehSData4:
		b := f.Bytes(p, 4)
		if b == nil {
			return 0, p, false
		}
		v, p = uint64(le.Uint32(b)), p+4
		if enc&0x0f == ehSData4 {
			v = uint64(int64(int32(v)))
		}
	case ehUData2, ehSData2:
		b := f.Bytes(p, 2)
		if b == nil {
			return 0, p, false
		}
		v, p = uint64(le.Uint16(b)), p+2
		if enc&0x0f == ehSData2 {
			v = uint64(int64(int16(v)))
		}
	case ehULEB, ehSLEB:
		var ok bool
		if v, p, ok = f.leb(p); !ok {
			return 0, p, false
		}
	default:
		return 0, p, false
	}
	switch enc & 0x70 {
	case 0:
	case ehPCRel:
		v += at
	case ehDataRel:
		v += data
	default:
		return 0, p, false
	}
	return v, p, true
}
