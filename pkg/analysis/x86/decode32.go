package x86

// Inst of 32-bit code has the registers 0 to 7 only, named as those of 64-bit
// code (RAX is EAX), and no operand relative to the next instruction: one
// without base and index is absolute.

func oneByteFlags32(op uint8) uint16 {
	switch {
	case op < 0x40:
		switch op & 7 {
		case 6, 7:
			return 0 // push and pop of segments, decimal adjustment
		}
		return oneByteFlags(op)
	case op <= 0x4f, op == 0x60, op == 0x61, op == 0xce, op == 0xd6:
		return 0
	}
	switch op {
	case 0x62, 0x63, 0xc4, 0xc5:
		return fModRM
	case 0x82:
		return fModRM | fImm8
	case 0xd4, 0xd5:
		return fImm8
	case 0x9a, 0xea:
		return fFar
	}
	return oneByteFlags(op)
}

var oneByte32 = table(oneByteFlags32)

// Decode32 is Decode for 32-bit code.
func Decode32(code []byte, inst *Inst) int {
	*inst = Inst{Base: None, Index: None, OpSize: 4}
	code = code[:min(len(code), 15)]
	p, opsize16, addr16 := prefixes32(code, inst)
	if p >= len(code) {
		return 0
	}
	op := code[p]
	p++
	var flags uint16
	switch {
	case op == 0x0f:
		var ok bool
		if p, op, flags, ok = escape(code, p, inst); !ok {
			return 0
		}
	case vector32(op, code[p:]):
		var ok bool
		if p, op, flags, ok = vexPrefix(code, p, op, inst); !ok {
			return 0
		}
		inst.Rex, inst.OpSize = 0, 4
	default:
		flags = oneByte32[op]
	}
	if flags&fBad != 0 {
		return 0
	}
	inst.Op = op
	if opsize16 && !inst.Vector {
		inst.OpSize = 2
	}
	if flags&fModRM != 0 {
		if p = modRM32(code, p, addr16, inst); p == 0 {
			return 0
		}
		if flags&(fF6|fF7) != 0 && inst.Reg < 2 {
			if flags&fF6 != 0 {
				flags |= fImm8
			} else {
				flags |= fImmZ
			}
		}
		if inst.Map == Map0F && !inst.Vector && op >= 0x20 && op <= 0x23 && inst.Mod != 3 {
			return 0
		}
	} else if inst.Map == MapOne && (op >= 0x40 && op <= 0x5f || op >= 0x90 && op <= 0x97 || op >= 0xb0 && op <= 0xbf) ||
		inst.Map == Map0F && op >= 0xc8 && op <= 0xcf {
		inst.RM = op & 7
	}
	return immediate32(code, p, flags, addr16, inst)
}

// prefixes32 reads the legacy prefixes; it returns the position of what
// follows.
func prefixes32(code []byte, inst *Inst) (p int, opsize16, addr16 bool) {
	for ; p < len(code); p++ {
		switch op := code[p]; op {
		case 0x66:
			opsize16 = true
		case 0x67:
			addr16 = true
		case 0xf3:
			inst.Rep, inst.Repne = true, false
		case 0xf2:
			inst.Repne, inst.Rep = true, false
		case 0xf0:
		case 0x26, 0x2e, 0x36, 0x3e:
			inst.Seg = 0
		case 0x64, 0x65:
			inst.Seg = op
		default:
			return p, opsize16, addr16
		}
	}
	return p, opsize16, addr16
}

// escape reads an opcode of the maps behind 0F.
func escape(code []byte, p int, inst *Inst) (next int, op uint8, flags uint16, ok bool) {
	if p >= len(code) {
		return 0, 0, 0, false
	}
	op = code[p]
	p++
	if op != 0x38 && op != 0x3a {
		inst.Map = Map0F
		return p, op, twoByte[op], true
	}
	inst.Map, flags = Map0F38, fModRM
	if op == 0x3a {
		inst.Map, flags = Map0F3A, fModRM|fImm8
	}
	if p >= len(code) {
		return 0, 0, 0, false
	}
	return p + 1, code[p], flags, true
}

// vector32 reports whether a byte begins a VEX, EVEX or XOP prefix: in 32-bit
// code the bytes of the first two begin other instructions, too, whose operand
// is in memory.
func vector32(op uint8, rest []byte) bool {
	switch op {
	case 0xc4, 0xc5, 0x62:
		return len(rest) > 0 && rest[0] >= 0xc0
	case 0x8f:
		return len(rest) > 0 && rest[0]&0x1f >= 8
	}
	return false
}

// modRM32 is modRM without extended registers.
func modRM32(code []byte, p int, addr16 bool, inst *Inst) int {
	if addr16 && p < len(code) && code[p] < 0xc0 {
		return modRM16(code, p, inst)
	}
	p = modRM(code, p, 0, inst)
	inst.RIPRel = false
	return p
}

// modRM16 reads an operand whose address has 16 bits. What it is computed from
// isn't told: Base is RBX, RBP, RSI or RDI, and there is no Index.
func modRM16(code []byte, p int, inst *Inst) int {
	m := code[p]
	p++
	inst.HasRM, inst.Mod, inst.Reg = true, m>>6, m>>3&7
	size := int(inst.Mod)
	inst.Base = [8]uint8{RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX}[m&7]
	if inst.Mod == 0 && m&7 == 6 {
		size, inst.Base = 2, None
	}
	if p+size > len(code) {
		return 0
	}
	switch size {
	case 1:
		inst.Disp = int64(int8(code[p]))
	case 2:
		inst.Disp = int64(int16(uint16(code[p]) | uint16(code[p+1])<<8))
	}
	if size > 0 {
		inst.DispOff = uint8(p)
	}
	return p + size
}

// immediate32 reads what follows the operand, and returns the length of the
// instruction.
func immediate32(code []byte, p int, flags uint16, addr16 bool, inst *Inst) int {
	z := 4
	if inst.OpSize == 2 {
		z = 2
	}
	size := 0
	switch {
	case flags&(fImm8|fRel8) != 0:
		size = 1
	case flags&fImm16 != 0:
		size = 2
	case flags&fEnter != 0:
		size = 3
	case flags&(fImmZ|fImmV|fRel32) != 0:
		size = z
	case flags&fFar != 0:
		size = z + 2
	case flags&fMoffs != 0:
		size = 4
		if addr16 {
			size = 2
		}
	}
	if p+size > len(code) {
		return 0
	}
	if size > 0 {
		v := uint64(0)
		for i := size - 1; i >= 0; i-- {
			v = v<<8 | uint64(code[p+i])
		}
		shift := 64 - 8*uint(size)
		inst.Imm = int64(v<<shift) >> shift
		inst.ImmSize = uint8(size)
		if flags&fMoffs != 0 {
			inst.Disp, inst.Imm = inst.Imm, 0
			inst.DispOff, inst.HasDisp32 = uint8(p), size == 4
		}
	}
	inst.Len = uint8(p + size)
	return p + size
}
