// Package x86 decodes x86-64 machine code as far as a call graph and the value
// analysis need it: exact lengths of every instruction (legacy, VEX, EVEX and
// XOP encodings), operands of the integer ones, and nothing of what the vector
// ones compute.
//
// Source of the encodings: Intel 64 and IA-32 Architectures Software
// Developer's Manual, volume 2, appendix A (opcode maps) and sections 2.3 and
// 2.7 (VEX, EVEX); AMD64 Architecture Programmer's Manual, volume 6 (XOP).
package x86

// Register numbers of the 64-bit general registers, as encoded.
const (
	RAX = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	// None marks an absent base or index.
	None = 0xff
)

// Opcode maps.
const (
	MapOne  = 0 // one-byte opcodes
	Map0F   = 1
	Map0F38 = 2
	Map0F3A = 3
)

// Inst is one decoded instruction. The zero value is an undecodable one.
type Inst struct {
	Disp      int64 // displacement, or the absolute address of a moffs operand
	Imm       int64 // immediate, sign-extended as the instruction does; branch displacement
	Len       uint8 // bytes, 1 to 15; 0 when undecodable
	Map       uint8 // MapOne, Map0F, ...; other maps only with Vector set
	Op        uint8 // opcode byte within Map
	Mod       uint8 // ModRM.mod (3: register operand)
	Reg       uint8 // ModRM.reg with REX.R
	RM        uint8 // ModRM.rm with REX.B, when Mod is 3
	Base      uint8 // base register of the memory operand, or None
	Index     uint8 // index register, or None
	Scale     uint8 // 1, 2, 4, 8
	OpSize    uint8 // operand size of integer instructions: 2, 4 or 8 (byte forms are told by Op)
	ImmSize   uint8 // bytes of the immediate, 0 when there is none
	DispOff   uint8 // offset of the displacement in the instruction, 0 when none
	HasRM     bool  // ModRM present
	RIPRel    bool  // memory operand is relative to the next instruction
	HasDisp32 bool  // displacement has 32 bits
	Vector    bool  // VEX, EVEX or XOP encoded
	Rep       bool  // F3 prefix
	Repne     bool  // F2 prefix
	Seg       uint8 // 0x64 or 0x65 for FS/GS overrides, else 0
	Rex       uint8 // REX byte, 0 when absent
}

// IsMem reports whether the instruction has a memory operand by ModRM.
func (i *Inst) IsMem() bool { return i.HasRM && i.Mod != 3 }

const (
	fModRM = 1 << iota
	fImm8
	fImm16
	fImmZ // 16 or 32 bits by operand size
	fImmV // 16, 32 or 64 bits by operand size
	fRel8
	fRel32
	fMoffs
	fBad
	fF6 // group 3: immediate only for /0 and /1
	fF7
	fEnter // imm16, imm8
	fFar   // a segment behind the address, in 32-bit code
)

func oneByteFlags(op uint8) uint16 {
	switch {
	case op < 0x40:
		switch op & 7 {
		case 0, 1, 2, 3:
			return fModRM
		case 4:
			return fImm8
		case 5:
			return fImmZ
		}
		return fBad
	case op >= 0x50 && op <= 0x5f:
		return 0
	case op >= 0x70 && op <= 0x7f:
		return fRel8
	case op >= 0x84 && op <= 0x8f:
		return fModRM
	case op >= 0x90 && op <= 0x99, op >= 0x9b && op <= 0x9f:
		return 0
	case op >= 0xa0 && op <= 0xa3:
		return fMoffs
	case op >= 0xb0 && op <= 0xb7:
		return fImm8
	case op >= 0xb8 && op <= 0xbf:
		return fImmV
	case op >= 0xd8 && op <= 0xdf:
		return fModRM
	}
	switch op {
	case 0x63, 0xd0, 0xd1, 0xd2, 0xd3, 0xfe, 0xff:
		return fModRM
	case 0x68, 0xa9:
		return fImmZ
	case 0x69, 0x81, 0xc7:
		return fModRM | fImmZ
	case 0x6a, 0xa8, 0xcd, 0xe4, 0xe5, 0xe6, 0xe7:
		return fImm8
	case 0x6b, 0x80, 0x83, 0xc0, 0xc1, 0xc6:
		return fModRM | fImm8
	case 0xc2, 0xca:
		return fImm16
	case 0xc8:
		return fEnter
	case 0xe0, 0xe1, 0xe2, 0xe3, 0xeb:
		return fRel8
	case 0xe8, 0xe9:
		return fRel32
	case 0xf6:
		return fModRM | fF6
	case 0xf7:
		return fModRM | fF7
	case 0x6c, 0x6d, 0x6e, 0x6f, 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
		0xc3, 0xc9, 0xcb, 0xcc, 0xcf, 0xd7, 0xec, 0xed, 0xee, 0xef,
		0xf1, 0xf4, 0xf5, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd:
		return 0
	}
	return fBad
}

func twoByteFlags(op uint8) uint16 {
	switch {
	case op >= 0x80 && op <= 0x8f:
		return fRel32
	case op >= 0x70 && op <= 0x73:
		return fModRM | fImm8
	case op >= 0xc8 && op <= 0xcf:
		return 0
	case op >= 0x30 && op <= 0x37:
		return 0
	}
	switch op {
	case 0x04, 0x0a, 0x0c, 0x24, 0x25, 0x26, 0x27, 0x39, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x7a, 0x7b:
		return fBad
	case 0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x77, 0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa:
		return 0
	case 0x0f, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6:
		return fModRM | fImm8
	}
	return fModRM
}

var (
	oneByte = table(oneByteFlags)
	twoByte = table(twoByteFlags)
)

func table(flags func(uint8) uint16) (t [256]uint16) {
	for i := range t {
		t[i] = flags(uint8(i))
	}
	return t
}

// Decode decodes the instruction at the start of code into inst and returns
// its length in bytes, or 0 when the bytes are not a whole valid instruction.
// Legacy prefixes in any order and number are accepted up to 15 bytes in all.
func Decode(code []byte, inst *Inst) int {
	*inst = Inst{Base: None, Index: None, OpSize: 4}
	n := len(code)
	if n > 15 {
		n = 15
	}
	p := 0
	opsize16 := false
	addr32 := false
	var rex uint8
	var op uint8
prefixes:
	for {
		if p >= n {
			return 0
		}
		op = code[p]
		switch op {
		case 0x66:
			opsize16, rex = true, 0
		case 0x67:
			addr32, rex = true, 0
		case 0xf3:
			inst.Rep, inst.Repne, rex = true, false, 0
		case 0xf2:
			inst.Repne, inst.Rep, rex = true, false, 0
		case 0xf0, 0x2e, 0x36, 0x3e, 0x26:
			rex = 0
		case 0x64, 0x65:
			inst.Seg, rex = op, 0
		default:
			if op&0xf0 == 0x40 {
				rex = op
			} else {
				break prefixes
			}
		}
		p++
	}
	p++
	var flags uint16
	switch op {
	case 0x0f:
		if p >= n {
			return 0
		}
		op = code[p]
		p++
		switch op {
		case 0x38, 0x3a:
			m := uint8(Map0F38)
			flags = fModRM
			if op == 0x3a {
				m, flags = Map0F3A, fModRM|fImm8
			}
			if p >= n {
				return 0
			}
			op = code[p]
			p++
			inst.Map = m
		default:
			inst.Map = Map0F
			flags = twoByte[op]
		}
	case 0xc4, 0xc5, 0x62, 0x8f:
		if op == 0x8f && (p >= n || code[p]&0x1f < 8) {
			flags = oneByte[op] // pop r/m
			break
		}
		var ok bool
		p, op, flags, ok = vexPrefix(code[:n], p, op, inst)
		if !ok {
			return 0
		}
		rex = inst.Rex
	default:
		flags = oneByte[op]
	}
	if flags&fBad != 0 {
		return 0
	}
	inst.Op = op
	inst.Rex = rex
	if !inst.Vector {
		switch {
		case rex&8 != 0:
			inst.OpSize = 8
		case opsize16:
			inst.OpSize = 2
		}
	}
	if flags&fModRM != 0 {
		if p = modRM(code[:n], p, rex, inst); p == 0 {
			return 0
		}
		if flags&(fF6|fF7) != 0 && inst.Reg&7 < 2 {
			if flags&fF6 != 0 {
				flags |= fImm8
			} else {
				flags |= fImmZ
			}
		}
		if inst.Map == Map0F && !inst.Vector && op >= 0x20 && op <= 0x23 && inst.Mod != 3 {
			return 0
		}
	} else if inst.Map == MapOne && (op >= 0x50 && op <= 0x5f || op >= 0x90 && op <= 0x97 || op >= 0xb0 && op <= 0xbf) ||
		inst.Map == Map0F && op >= 0xc8 && op <= 0xcf {
		inst.RM = op&7 | rex&1<<3
	}
	size := 0
	switch {
	case flags&(fImm8|fRel8) != 0:
		size = 1
	case flags&fImm16 != 0:
		size = 2
	case flags&fRel32 != 0:
		size = 4
	case flags&fEnter != 0:
		size = 3
	case flags&fImmZ != 0:
		size = 4
		if inst.OpSize == 2 {
			size = 2
		}
	case flags&fImmV != 0:
		size = int(inst.OpSize)
	case flags&fMoffs != 0:
		size = 8
		if addr32 {
			size = 4
		}
	}
	if size > 0 {
		if p+size > n {
			return 0
		}
		v := uint64(0)
		for i := size - 1; i >= 0; i-- {
			v = v<<8 | uint64(code[p+i])
		}
		shift := 64 - 8*uint(size)
		inst.Imm = int64(v<<shift) >> shift
		inst.ImmSize = uint8(size)
		if flags&fMoffs != 0 {
			inst.Disp, inst.Imm = inst.Imm, 0
		}
		p += size
	}
	inst.Len = uint8(p)
	return p
}

// vexPrefix reads a VEX (C4, C5), EVEX (62) or XOP (8F) prefix whose first
// byte is already consumed, and the opcode behind it.
func vexPrefix(code []byte, p int, first uint8, inst *Inst) (int, uint8, uint16, bool) {
	need := 3
	switch first {
	case 0xc5:
		need = 2
	case 0x62:
		need = 4
	}
	if p+need > len(code) {
		return 0, 0, 0, false
	}
	inst.Vector = true
	var m uint8
	rex := uint8(0x40)
	b := code[p]
	if b&0x80 == 0 {
		rex |= 4
	}
	switch first {
	case 0xc5:
		m = Map0F
	case 0xc4, 0x8f:
		m = b & 0x1f
		if b&0x40 == 0 {
			rex |= 2
		}
		if b&0x20 == 0 {
			rex |= 1
		}
		if code[p+1]&0x80 != 0 {
			rex |= 8
		}
	case 0x62:
		m = b & 7
		if b&0x40 == 0 {
			rex |= 2
		}
		if b&0x20 == 0 {
			rex |= 1
		}
		if code[p+1]&0x80 != 0 {
			rex |= 8
		}
	}
	inst.Rex = rex
	inst.OpSize = 4
	if rex&8 != 0 {
		inst.OpSize = 8
	}
	p += need
	op := code[p-1]
	inst.Map = m
	if first == 0x8f {
		inst.Map = 0x10 | m
		switch m {
		case 8:
			return p, op, fModRM | fImm8, true
		case 9:
			return p, op, fModRM, true
		case 10:
			return p, op, fModRM | fImmZ, true
		}
		return 0, 0, 0, false
	}
	switch m {
	case Map0F:
		if op == 0x77 && first != 0x62 {
			return p, op, 0, true
		}
		switch op {
		case 0x70, 0x71, 0x72, 0x73, 0xc2, 0xc4, 0xc5, 0xc6:
			return p, op, fModRM | fImm8, true
		}
		return p, op, fModRM, true
	case Map0F38, 5, 6:
		return p, op, fModRM, true
	case Map0F3A:
		return p, op, fModRM | fImm8, true
	}
	return 0, 0, 0, false
}

// modRM reads ModRM, SIB and displacement; it returns the new position, 0 when
// the code ends early.
func modRM(code []byte, p int, rex uint8, inst *Inst) int {
	n := len(code)
	if p >= n {
		return 0
	}
	m := code[p]
	p++
	inst.HasRM = true
	inst.Mod = m >> 6
	inst.Reg = m>>3&7 | rex&4<<1
	rm := m & 7
	if inst.Mod == 3 {
		inst.RM = rm | rex&1<<3
		return p
	}
	disp := 0
	switch inst.Mod {
	case 1:
		disp = 1
	case 2:
		disp = 4
	}
	if rm == 4 {
		if p >= n {
			return 0
		}
		sib := code[p]
		p++
		inst.Scale = 1 << (sib >> 6)
		if idx := sib>>3&7 | rex&2<<2; idx != RSP {
			inst.Index = idx
		}
		if sib&7 == 5 && inst.Mod == 0 {
			disp = 4
		} else {
			inst.Base = sib&7 | rex&1<<3
		}
	} else if rm == 5 && inst.Mod == 0 {
		disp = 4
		inst.RIPRel = true
	} else {
		inst.Base = rm | rex&1<<3
	}
	if disp > 0 {
		if p+disp > n {
			return 0
		}
		inst.DispOff = uint8(p)
		if disp == 1 {
			inst.Disp = int64(int8(code[p]))
		} else {
			inst.HasDisp32 = true
			inst.Disp = int64(int32(uint32(code[p]) | uint32(code[p+1])<<8 | uint32(code[p+2])<<16 | uint32(code[p+3])<<24))
		}
		p += disp
	}
	return p
}
