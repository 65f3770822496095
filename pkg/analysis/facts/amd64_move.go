package facts

import "github.com/confinehq/confine/pkg/analysis/x86"

func (amd64) move(code []byte) move {
	var in x86.Inst
	if x86.Decode(code, &in) == 0 || in.Vector {
		return move{}
	}
	switch in.Map {
	case x86.MapOne:
		return moveOne(&in)
	case x86.Map0F:
		switch op := in.Op; {
		case op == 0x1f, op == 0x18:
			return move{kind: moveNone}
		case op == 0x10, op == 0x11, op == 0x12, op == 0x14, op == 0x16, op == 0x28, op == 0x29, op == 0x57, op == 0x6c, op == 0x6f, op == 0x7f, op == 0xd6, op == 0xef:
			return move{kind: moveNone} // vector registers and memory
		case op >= 0x40 && op <= 0x4f, op == 0xb6, op == 0xb7, op == 0xbe, op == 0xbf:
			return move{kind: moveOther, dst: in.Reg}
		}
	}
	return move{}
}

func moveOne(in *x86.Inst) move {
	op, register := in.Op, in.Mod == 3
	none := move{kind: moveNone}
	to := func(r uint8) move { return move{kind: moveOther, dst: r} }
	switch {
	case op < 0x40 && op>>3 == 7: // cmp
		return none
	case op < 0x40 && op&7 == 1:
		switch {
		case !register:
			return none
		case in.RM == in.Reg && (op == 0x31 || op == 0x29) && in.OpSize >= 4:
			return move{kind: moveConst, dst: in.RM}
		}
		return to(in.RM)
	case op < 0x40 && op&7 == 3:
		if register && in.RM == in.Reg && (op == 0x33 || op == 0x2b) && in.OpSize >= 4 {
			return move{kind: moveConst, dst: in.Reg}
		}
		return to(in.Reg)
	case op >= 0x50 && op <= 0x57, op == 0x68, op == 0x6a, op >= 0x84 && op <= 0x85, op == 0xa8, op == 0xa9, op == 0x90 && in.RM == x86.RAX && in.Rex&1 == 0:
		return none
	case op == 0x63 && in.OpSize >= 4, op == 0x8b && in.OpSize >= 4:
		if register {
			return move{kind: moveCopy, dst: in.Reg, src: in.RM}
		}
		if in.RIPRel || in.Seg == 0 && (in.Base == x86.None || in.Base == x86.RSP || in.Base == x86.RBP) {
			return to(in.Reg)
		}
		return move{kind: moveAny, dst: in.Reg}
	case op == 0x81 || op == 0x83:
		switch {
		case in.Reg&7 == 7 || !register:
			return none
		case in.Reg&7 == 1 && in.Imm == -1 && in.OpSize >= 4:
			return move{kind: moveConst, dst: in.RM, imm: -1}
		}
		return to(in.RM)
	case op == 0x88 || op == 0xc6:
		if !register {
			return none
		}
	case op == 0x89:
		switch {
		case !register:
			return none
		case in.OpSize >= 4:
			return move{kind: moveCopy, dst: in.RM, src: in.Reg}
		}
		return to(in.RM)
	case op == 0x8d:
		return to(in.Reg)
	case op >= 0xb8 && op <= 0xbf && in.OpSize >= 4:
		return move{kind: moveConst, dst: in.RM, imm: in.Imm}
	case op == 0xc7 && in.OpSize >= 4:
		if register {
			return move{kind: moveConst, dst: in.RM, imm: in.Imm}
		}
		return none
	}
	return move{}
}
