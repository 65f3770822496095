package facts

import "github.com/confinehq/confine/pkg/analysis/x86"

// step applies an instruction that control runs on behind.
func (f *flow32) step(at uint64, in *x86.Inst, s *addresses32) {
	if in.Vector {
		return
	}
	switch in.Map {
	case x86.MapOne:
		f.stepOne(at, in, s)
	case x86.Map0F:
		switch op := in.Op; {
		case op >= 0x40 && op <= 0x4f: // cmov
			s.regs[in.Reg] = f.join(at, s.regs[in.Reg], f.operand(in, s))
		case op == 0xaf, op == 0xb6, op == 0xb7, op == 0xbe, op == 0xbf, op == 0xbc, op == 0xbd:
			f.set(s, in.Reg, holds{})
		case op == 0xa2:
			s.regs[x86.RAX], s.regs[x86.RBX], s.regs[x86.RCX], s.regs[x86.RDX] = holds{}, holds{}, holds{}, holds{}
		case op == 0xa0, op == 0xa8:
			f.pushes(s, holds{}, at)
		case op == 0xa1, op == 0xa9:
			f.pops(s)
		}
	}
}

func (f *flow32) pops(s *addresses32) holds {
	v := f.get(s, s.regs[x86.RSP], true)
	if sp := &s.regs[x86.RSP]; sp.kind == holdsStack {
		sp.off += 4
	}
	return v
}

// set writes a register. Whoever writes the stack pointer with something
// unknown begins a frame of his own.
func (f *flow32) set(s *addresses32, r uint8, v holds) {
	s.regs[r] = v
}

// operand is what an operand of 32 bits holds.
func (f *flow32) operand(in *x86.Inst, s *addresses32) holds {
	if in.Mod == 3 {
		return s.regs[in.RM]
	}
	if in.Seg != 0 {
		return holds{}
	}
	v, fuzzy := f.address(in, s)
	switch {
	case stackOperand(in, s) && !fuzzy:
		return f.get(s, v, in.Base != x86.RSP)
	case stackOperand(in, s) && s.any:
		return holds{kind: holdsBase, addr: f.got}
	case v.kind == holdsBase && fuzzy && in.Disp != 0, v.kind == holdsTable && fuzzy, v.kind == holdsBase && !fuzzy && !f.isBase(v.addr), v.kind == holdsTable:
		return holds{kind: holdsEntry, addr: v.addr}
	case v.kind == holdsBase && fuzzy:
		return holds{kind: holdsEntry, addr: v.addr}
	}
	return holds{}
}

// write stores to the operand of an instruction.
func (f *flow32) write(at uint64, in *x86.Inst, s *addresses32, v holds) {
	if in.Mod == 3 {
		if in.RM == x86.RSP && v.kind != holdsStack {
			v = holds{kind: holdsStack, addr: uint32(at)}
		}
		f.set(s, in.RM, v)
		return
	}
	to, fuzzy := f.address(in, s)
	switch {
	case stackOperand(in, s) && to.kind == holdsStack && !fuzzy:
		f.put(s, to, v, at)
	case v.kind == holdsBase || v.kind == holdsPlace:
		if stackOperand(in, s) {
			s.any = true
		}
	}
}

func (f *flow32) stepOne(at uint64, in *x86.Inst, s *addresses32) {
	op := in.Op
	whole := in.OpSize == 4
	switch {
	case op < 0x40 && op&7 < 6 || op == 0x81 || op == 0x83:
		f.arithmetic(at, in, s)
	case op < 0x40:
		switch op {
		case 0x06, 0x0e, 0x16, 0x1e:
			f.pushes(s, holds{}, at)
		case 0x07, 0x17, 0x1f:
			f.pops(s)
		}
	case op <= 0x4f: // inc, dec
		if v := &s.regs[in.RM]; v.kind == holdsStack && whole {
			v.off += 1 - 2*int32(op>>3&1)
		} else if v.kind != holdsBase {
			*v = holds{}
		}
	case op <= 0x57:
		f.pushes(s, s.regs[in.RM], at)
	case op <= 0x5f:
		v := f.pops(s)
		if in.RM == x86.RSP && v.kind != holdsStack {
			v = holds{kind: holdsStack, addr: uint32(at)}
		}
		s.regs[in.RM] = v
	case op == 0x60:
		for r := range s.regs {
			f.pushes(s, s.regs[r], at)
		}
	case op == 0x61:
		for r := len(s.regs) - 1; r >= 0; r-- {
			if v := f.pops(s); r != x86.RSP {
				s.regs[r] = v
			}
		}
	case op == 0x68, op == 0x6a, op == 0x9c:
		f.pushes(s, holds{}, at)
	case op == 0x9d:
		f.pops(s)
	case op == 0x69, op == 0x6b:
		f.set(s, in.Reg, holds{})
	case op == 0x87:
		f.exchange(at, in, s)
	case op == 0x89 && whole:
		f.write(at, in, s, s.regs[in.Reg])
	case op == 0x8b && whole:
		v := f.operand(in, s)
		if in.Reg == x86.RSP && v.kind != holdsStack {
			v = holds{kind: holdsStack, addr: uint32(at)}
		}
		f.set(s, in.Reg, v)
	case op == 0x8d && in.IsMem():
		f.lea(at, in, s)
	case op == 0x8f:
		f.write(at, in, s, f.pops(s))
	case op >= 0x91 && op <= 0x97 && whole:
		s.regs[x86.RAX], s.regs[in.RM] = s.regs[in.RM], s.regs[x86.RAX]
	case op == 0x99:
		s.regs[x86.RDX] = holds{}
	case op == 0xa1 && whole:
		s.regs[x86.RAX] = holds{}
	case op >= 0xb8 && op <= 0xbf && whole:
		s.regs[in.RM] = holds{}
	case op == 0xc1, op == 0xd1, op == 0xd3:
		if in.Mod == 3 {
			s.regs[in.RM] = holds{}
		}
	case op == 0xc7:
		f.write(at, in, s, holds{})
	case op == 0xc9: // leave
		s.regs[x86.RSP] = s.regs[x86.RBP]
		if s.regs[x86.RSP].kind != holdsStack {
			s.regs[x86.RSP] = holds{kind: holdsStack, addr: uint32(at)}
		}
		s.regs[x86.RBP] = f.pops(s)
	case op == 0xcd:
		s.regs[x86.RAX] = holds{}
	case op == 0xf7 && in.Reg >= 2:
		if in.Reg >= 4 {
			s.regs[x86.RAX], s.regs[x86.RDX] = holds{}, holds{}
		} else if in.Mod == 3 {
			s.regs[in.RM] = holds{}
		}
	case op == 0xff && in.Reg == 6:
		f.pushes(s, f.operand(in, s), at)
	}
}

func (f *flow32) exchange(at uint64, in *x86.Inst, s *addresses32) {
	v := f.operand(in, s)
	f.write(at, in, s, s.regs[in.Reg])
	f.set(s, in.Reg, v)
}

// maxFolded bounds a constant, in bytes, that is part of an index rather than
// the distance of what is named.
const maxFolded = 64

// lea computes an address.
func (f *flow32) lea(at uint64, in *x86.Inst, s *addresses32) {
	v, fuzzy := f.address(in, s)
	switch {
	case in.OpSize != 4:
		v = holds{}
	case v.kind == holdsStack && fuzzy, v.kind == 0:
		v = holds{}
	case v.kind == holdsBase && fuzzy && in.Disp > -maxFolded && in.Disp < maxFolded:
		v.addr -= uint32(in.Disp)
	case v.kind == holdsBase && !f.isBase(v.addr), v.kind == holdsPlace && !f.isBase(v.addr):
		v.kind = holdsTable
	case v.kind == holdsPlace:
		v.kind = holdsBase
	}
	if in.Reg == x86.RSP && v.kind != holdsStack {
		v = holds{kind: holdsStack, addr: uint32(at)}
	}
	f.set(s, in.Reg, v)
}

// arithmetic follows additions; what else is computed is no address.
func (f *flow32) arithmetic(at uint64, in *x86.Inst, s *addresses32) {
	op := in.Op
	kind := op >> 3
	if op >= 0x80 {
		kind = in.Reg
	}
	if kind == 7 {
		return // a comparison
	}
	switch {
	case op >= 0x80 || op&7 == 5: // a constant
		r, mem := in.RM, in.Mod != 3
		if op&7 == 5 && op < 0x40 {
			r, mem = x86.RAX, false
		}
		if mem {
			if to, fuzzy := f.address(in, s); stackOperand(in, s) && !fuzzy && to.kind == holdsStack {
				f.put(s, to, f.plus(at, f.get(s, to, false), kind, in), at)
			}
			return
		}
		v := f.plus(at, s.regs[r], kind, in)
		if r == x86.RSP && v.kind != holdsStack {
			v = holds{kind: holdsStack, addr: uint32(at)}
		}
		s.regs[r] = v
	case op&7 == 1: // to r/m
		if in.Mod == 3 {
			f.write(at, in, s, f.sum(kind, s.regs[in.RM], s.regs[in.Reg], in))
		} else if to, fuzzy := f.address(in, s); stackOperand(in, s) && !fuzzy && to.kind == holdsStack {
			f.put(s, to, f.sum(kind, f.get(s, to, false), s.regs[in.Reg], in), at)
		}
	case op&7 == 3: // to a register
		v := f.sum(kind, s.regs[in.Reg], f.operand(in, s), in)
		if in.Reg == x86.RSP {
			v = holds{kind: holdsStack, addr: uint32(at)}
		}
		s.regs[in.Reg] = v
	}
}

// plus adds or subtracts a constant.
func (f *flow32) plus(at uint64, v holds, kind uint8, in *x86.Inst) holds {
	by := int32(in.Imm)
	switch kind {
	case 0:
	case 5:
		by = -by
	default:
		return holds{}
	}
	if in.OpSize != 4 {
		return holds{}
	}
	switch v.kind {
	case holdsStack:
		v.off += by
	case holdsPlace:
		v.kind, v.addr = holdsBase, v.addr+uint32(by)
		f.named(at, v.addr)
	case holdsBase:
		if v.addr += uint32(by); f.isBase(v.addr) {
			break
		}
		if f.inGOT(uint64(v.addr)) || !f.o.File.InImage(uint64(v.addr)) {
			return holds{} // it was something else: nobody counts from the table's address
		}
		f.named(at, v.addr)
		v.kind = holdsTable
	case holdsTable:
		v = holds{}
	default:
		v = holds{}
	}
	return v
}

// sum adds two registers: an entry of a table to what it is counted from, or
// an index to an address.
func (f *flow32) sum(kind uint8, v, w holds, in *x86.Inst) holds {
	if kind != 0 || in.OpSize != 4 {
		return holds{}
	}
	if w.kind == holdsEntry {
		v, w = w, v
	}
	switch {
	case v.kind == holdsEntry && (w.kind == holdsBase || w.kind == holdsTable):
		return holds{kind: holdsTarget, addr: v.addr, anchor: w.addr}
	case v.kind == holdsBase:
		return v
	case w.kind == holdsBase:
		return w
	case v.kind == holdsTable:
		return v
	case w.kind == holdsTable:
		return w
	}
	return holds{}
}
