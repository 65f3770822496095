package arm64

// memory decodes loads and stores.
func memory(w uint32, in *Inst) {
	in.Vector = w>>26&1 != 0
	in.Rd, in.Rn = zr(w, 0), sp(w, 5)
	switch {
	case w>>24&0xbf == 0x0c, w>>24&0xbf == 0x0d:
		structures(w, in)
	case w>>24&0x3f == 0x08:
		exclusive(w, in)
	case w>>24&0x3b == 0x18:
		literal(w, in)
	case w>>24&0x3f == 0x19, w>>24&0x3f == 0x1d:
		ordered(w, in)
	case w>>27&7 == 5:
		pair(w, in)
	case w>>27&7 == 7:
		single(w, in)
	default: // newer exclusive forms
		in.Op, in.Maybe = Blocks, true
		in.Rm = uint8(w >> 16 & 31)
		if in.Rm == 31 {
			in.Rm = None
		}
	}
}

// structures: ld1 to ld4, st1 to st4, up to 64 bytes.
func structures(w uint32, in *Inst) {
	in.Vector, in.Size = true, 64
	in.Op = Store
	if w>>22&1 != 0 {
		in.Op = Load
	}
	if w>>23&1 != 0 {
		in.Mode = Post
		if r := uint8(w >> 16 & 31); r != 31 {
			in.Rm = r
		} else {
			// The length of what is transferred: not needed exactly.
			in.Rm = ZR
			in.Maybe = true
		}
	}
}

func exclusive(w uint32, in *Inst) {
	in.Size = 1 << (w >> 30)
	in.Wide = in.Size == 8
	rs, rt2 := zr(w, 16), zr(w, 10)
	load := w>>22&1 != 0
	switch o2, o1 := w>>23&1, w>>21&1; {
	case o2 == 0 && o1 == 1 && in.Size < 4: // casp
		in.Op, in.Size = Atomic, in.Size*8
		in.Rd = rs
		in.Ra = rs + 1
		if rs >= 30 {
			in.Rd, in.Ra = ZR, ZR
		}
	case o2 == 0 && load:
		in.Op = Load
		if o1 == 1 {
			in.Ra = rt2
		}
	case o2 == 0:
		in.Op, in.Ra = StoreX, rs
		if o1 == 1 {
			in.Size *= 2
		}
	case o1 == 1: // cas
		in.Op, in.Rd = Atomic, rs
	case load:
		in.Op = Load
	default:
		in.Op = Store
	}
}

func literal(w uint32, in *Inst) {
	in.Op, in.Rn = Literal, None
	in.Imm = sext(w>>5&0x7ffff, 19) * 4
	opc := w >> 30
	if in.Vector {
		in.Size = 4 << opc
		if opc == 3 {
			in.Op = Undefined
		}
		return
	}
	in.Size, in.Wide = 4, opc > 0
	switch opc {
	case 1:
		in.Size = 8
	case 2:
		in.Signed = true
	case 3:
		in.Op, in.Rd = Hint, None
	}
}

// ordered: ldapur, stlur, memory copies and sets, tags.
func ordered(w uint32, in *Inst) {
	if w>>10&3 == 1 && w>>21&1 == 0 { // cpy*, set*
		in.Op, in.Vector = Blocks, false
		in.Rd, in.Rn, in.Rm = zr(w, 0), zr(w, 5), zr(w, 16)
		return
	}
	if w>>21&1 != 0 { // tags; 16 bytes or two times that
		in.Imm = sext(w>>12&0x1ff, 9) * 16
		in.Size, in.Op = 32, Store
		in.Vector = true
		switch w >> 10 & 3 {
		case 1:
			in.Mode = Post
		case 3:
			in.Mode = Pre
		case 0:
			if w>>22&3 == 1 { // ldg
				in.Op, in.Size, in.Vector, in.Maybe = Atomic, 16, false, true
			} else {
				in.Op, in.Maybe = Blocks, true
				in.Rd = None
			}
		}
		return
	}
	if w>>10&3 == 0 || w>>10&3 == 2 {
		in.Imm = sext(w>>12&0x1ff, 9)
		transfer(w, in)
		return
	}
	in.Op, in.Maybe = Blocks, true
}

func pair(w uint32, in *Inst) {
	in.Ra = zr(w, 10)
	in.Op = Store
	if w>>22&1 != 0 {
		in.Op = Load
	}
	opc := w >> 30
	switch {
	case in.Vector:
		in.Size = 4 << opc
		if opc == 3 {
			in.Op = Undefined
		}
	case opc == 0:
		in.Size, in.Wide = 4, false
	case opc == 1:
		in.Size, in.Wide, in.Signed = 4, true, true
		if in.Op == Store { // stgp
			in.Size = 8
		}
	case opc == 2:
		in.Size, in.Wide = 8, true
	default:
		in.Op = Undefined
	}
	scale := int64(in.Size)
	if !in.Vector && opc == 1 && in.Op == Store {
		scale = 16
	}
	in.Imm = sext(w>>15&0x7f, 7) * scale
	switch w >> 23 & 3 {
	case 1:
		in.Mode = Post
	case 3:
		in.Mode = Pre
	}
}

// transfer sets what size and opc say of a single register.
func transfer(w uint32, in *Inst) {
	size, opc := w>>30, w>>22&3
	in.Size = 1 << size
	in.Wide = size == 3
	if in.Vector {
		if opc >= 2 {
			in.Size = 16
			if size != 0 {
				in.Op = Undefined
				return
			}
		}
		in.Op = Store
		if opc&1 != 0 {
			in.Op = Load
		}
		return
	}
	switch opc {
	case 0:
		in.Op = Store
	case 1:
		in.Op = Load
	case 2:
		in.Op, in.Signed, in.Wide = Load, true, true
		if size == 3 {
			in.Op, in.Rd = Hint, None // prefetch
		}
	case 3:
		in.Op, in.Signed, in.Wide = Load, true, false
		if size >= 2 {
			in.Op = Undefined
		}
	}
}

func single(w uint32, in *Inst) {
	if w>>24&1 != 0 {
		transfer(w, in)
		in.Imm = int64(w>>10&0xfff) * int64(max(in.Size, 1))
		return
	}
	if w>>21&1 == 0 {
		transfer(w, in)
		in.Imm = sext(w>>12&0x1ff, 9)
		switch w >> 10 & 3 {
		case 1:
			in.Mode = Post
		case 3:
			in.Mode = Pre
		}
		return
	}
	switch w >> 10 & 3 {
	case 0:
		atomic(w, in)
	case 2:
		transfer(w, in)
		in.Mode = Register
		in.Rm = zr(w, 16)
		in.Shift = UXTB + uint8(w>>13&7)
		if w>>12&1 != 0 {
			for s := in.Size; s > 1; s >>= 1 {
				in.Amount++
			}
		}
		if w>>14&1 == 0 {
			in.Op = Undefined
		}
	default: // ldraa, ldrab: the pointer is authenticated first
		if in.Vector || w>>30 != 3 {
			in.Op = Undefined
			return
		}
		in.Op, in.Size, in.Wide = Load, 8, true
		in.Imm = sext(w>>22&1<<9|w>>12&0x1ff, 10) * 8
		if w>>11&1 != 0 {
			in.Mode = Pre
		}
	}
}

// atomic: read, change and write in one; ldapr and the 64-byte forms among
// them.
func atomic(w uint32, in *Inst) {
	in.Size = 1 << (w >> 30)
	in.Wide = in.Size == 8
	in.Op = Atomic
	if in.Vector { // floating-point atomics
		return
	}
	switch o3opc := w >> 12 & 15; {
	case o3opc == 12: // ldapr
		in.Op = Load
	case o3opc == 9 || o3opc == 10 || o3opc == 11 || o3opc == 13: // 64 bytes, from or to eight registers; rcw forms
		in.Size = 64
		if o3opc == 13 {
			in.Op, in.Maybe = Blocks, true
		}
	}
}
