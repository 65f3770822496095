package facts

import "github.com/confinehq/confine/pkg/analysis/x86"

// keptByCalls reports whether the calling convention has callees save a
// register.
func keptByCalls(r uint8) bool { return r == x86.RBX || r == x86.RBP || r >= x86.R12 && r <= x86.R15 }

// holds: mov slot(%rip), lea address(%rip), and what linkers make of those for
// programs with fixed addresses, mov $address.
func (amd64) holds(code []byte) (uint8, bool) {
	if len(code) < 7 {
		return 0, false
	}
	if code[0]&0xfb == 0x48 && (code[1] == 0x8b || code[1] == 0x8d) { // REX.W, and R or not: mov or lea
		r := code[2]>>3&7 | code[0]&4<<1
		return r, code[2]&0xc7 == 5 && keptByCalls(r)
	}
	var in x86.Inst
	if code[0]&0xf0 != 0xb0 && code[0]&0xf0 != 0x40 && code[0] != 0xc7 || x86.Decode(code, &in) == 0 || in.Vector || in.Map != x86.MapOne {
		return 0, false
	}
	switch op := in.Op; {
	case op >= 0xb8 && op <= 0xbf && in.OpSize >= 4, op == 0xc7 && in.Mod == 3 && in.OpSize >= 4:
		return in.RM, keptByCalls(in.RM)
	}
	return 0, false
}

// use knows the instructions that compilers make; of any other that names the
// register it says that it reads it.
func (amd64) use(code []byte, r uint8) regUse {
	var in x86.Inst
	if x86.Decode(code, &in) == 0 {
		return useRead
	}
	if in.IsMem() && (in.Base == r || in.Index == r) {
		return useRead
	}
	inRM := in.HasRM && in.Mod == 3 && in.RM == r
	inReg := in.HasRM && in.Reg == r
	if in.Vector || in.Map == x86.Map0F38 || in.Map == x86.Map0F3A {
		if in.Vector && in.Map != x86.Map0F || inRM || inReg {
			return useRead // some name general registers
		}
		return useNone
	}
	if in.Map == x86.Map0F {
		return use0F(&in, r, inRM, inReg)
	}
	return useOne(&in, r, inRM, inReg)
}

func use0F(in *x86.Inst, r uint8, inRM, inReg bool) regUse {
	switch op := in.Op; {
	case op == 0xa2 && r == x86.RBX: // cpuid
		return useWrite
	case op == 0xc7 && r == x86.RBX: // cmpxchg16b
		return useRead
	case op >= 0x10 && op <= 0x17, op == 0x28, op == 0x29, op >= 0x51 && op <= 0x6d, op == 0x6f, op == 0x7f, op == 0xd6, op == 0xef, op == 0x1e, op == 0x1f:
		return useNone // vector registers alone, and what does nothing
	case op >= 0x80 && op <= 0x8f:
		return useNone
	case op >= 0x90 && op <= 0x9f: // setcc: a part of the register
		if inRM {
			return useRead
		}
		return useNone
	case op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf: // movzx, movsx
		if inReg && !inRM && in.OpSize >= 4 {
			return useWrite
		}
	}
	if inRM || inReg {
		return useRead
	}
	return useNone
}

func useOne(in *x86.Inst, r uint8, inRM, inReg bool) regUse {
	switch op := in.Op; {
	case op >= 0x50 && op <= 0x57, op >= 0x90 && op <= 0x97:
		if in.RM == r {
			return useRead
		}
		return useNone
	case op >= 0x58 && op <= 0x5f, op >= 0xb8 && op <= 0xbf && in.OpSize >= 4:
		if in.RM == r {
			return useWrite
		}
		return useNone
	case op >= 0xb0 && op <= 0xbf:
		if in.RM == r {
			return useRead
		}
		return useNone
	case op == 0xc8, op == 0xc9: // enter, leave
		if r == x86.RBP {
			return useRead
		}
		return useNone
	case op == 0xd7: // xlat
		if r == x86.RBX {
			return useRead
		}
		return useNone
	case op == 0x8b || op == 0x63 || op == 0x8d:
		switch {
		case inRM:
			return useRead
		case inReg && in.OpSize >= 4:
			return useWrite
		}
	case op == 0x89:
		switch {
		case inReg:
			return useRead
		case inRM && in.OpSize >= 4:
			return useWrite
		}
	case op == 0x31 || op == 0x33:
		if inRM && inReg && in.OpSize >= 4 {
			return useWrite
		}
	case op == 0x85 && inRM && inReg: // is it there at all
		return useNone
	case op == 0x80 || op == 0x81 || op == 0x83 || op == 0xc0 || op == 0xc1 || op >= 0xd0 && op <= 0xd3 || op == 0xf6 || op == 0xf7 || op == 0xfe || op == 0xc6:
		if inRM {
			return useRead
		}
		return useNone // the other register is a part of the opcode
	case op == 0xc7:
		if inRM && in.OpSize >= 4 {
			return useWrite
		}
		if !inRM {
			return useNone
		}
	case op == 0xff:
		switch {
		case inRM && (in.Reg&7 == 2 || in.Reg&7 == 4):
			return useCall
		case !inRM:
			return useNone
		}
	}
	if inRM || inReg {
		return useRead
	}
	return useNone
}

// based reports whether an instruction reads or writes memory through a
// register other than the stack pointer.
func (amd64) based(code []byte) bool {
	var in x86.Inst
	if x86.Decode(code, &in) == 0 {
		return true
	}
	if in.Map == x86.Map0F && (in.Op == 0x1f || in.Op == 0x1e) && !in.Vector {
		return false // does nothing
	}
	if in.Map == x86.MapOne && !in.Vector && (in.Op >= 0xa4 && in.Op <= 0xa7 || in.Op >= 0xaa && in.Op <= 0xaf || in.Op == 0xd7) {
		return true // strings
	}
	return in.IsMem() && !in.RIPRel && (in.Base != x86.None && in.Base != x86.RSP || in.Index != x86.None)
}
