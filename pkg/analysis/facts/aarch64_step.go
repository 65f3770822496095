package facts

import "github.com/confinehq/confine/pkg/analysis/arm64"

func (aarch64) block(it *interp, at uint64) {
	s := it.in[at].clone()
	if !it.spend(len(s.stack.list) / copyCost) {
		return
	}
	code := it.o.File.Bytes(at, it.fn.End-at)
	var in, prev arm64.Inst
	for first := true; ; first = false {
		if len(code) == 0 { // runs on into the next function
			it.note(at, s)
			return
		}
		if !first {
			if _, join := it.in[at]; join {
				it.flow(at, s)
				return
			}
		}
		if !it.spend(1) || !decodeA64(at, code, &in) {
			return
		}
		it.note(at, s)
		to := at + uint64(in.Imm)
		switch in.Op {
		case arm64.B:
			it.flow(to, s)
			it.noteJump(s, to)
			return
		case arm64.BCond, arm64.CBZ, arm64.CBNZ, arm64.TBZ, arm64.TBNZ:
			it.branchA64(s, &prev, &in, to)
		case arm64.RET, arm64.Trap, arm64.Break, arm64.Privileged:
			return
		case arm64.BR:
			for _, t := range it.tables {
				it.flow(t, s)
			}
			it.noteIndirect(s)
			return
		case arm64.BL:
			if !it.o.mayReturn(to, 0) {
				return
			}
			it.noteJump(s, to)
			it.call(s)
		case arm64.BLR:
			it.noteIndirect(s)
			it.call(s)
		default:
			it.stepA64(s, &in, at)
		}
		code, at, prev = code[4:], at+4, in
	}
}

// branchA64 flows to the target of a conditional jump. Where a whole register
// is compared with a constant, the side on which they are equal knows it.
func (it *interp) branchA64(s *state, prev, in *arm64.Inst, to uint64) {
	reg, c, equal := in.Rn, int64(0), in.Op == arm64.CBZ
	known := in.Wide && (in.Op == arm64.CBZ || in.Op == arm64.CBNZ)
	if in.Op == arm64.BCond && in.Cond <= 1 {
		reg, c, equal = prev.Rn, prev.Imm, in.Cond == 0
		known = prev.Op == arm64.SUB && prev.Flags && prev.Rd == arm64.ZR && prev.Rm == arm64.None && prev.Wide
	}
	if !known || reg >= arm64.SP {
		it.flow(to, s)
		return
	}
	was := s.regs[reg]
	if equal {
		s.regs[reg] = constant(c)
		it.flow(to, s)
		s.regs[reg] = was
		return
	}
	it.flow(to, s)
	s.regs[reg] = constant(c)
}

// get reads a register.
func (s *state) get(r uint8, wide bool) val {
	switch {
	case r == arm64.ZR:
		return constant(0)
	case r >= maxRegs:
		return top
	case wide:
		return s.regs[r]
	}
	return s.regs[r].mask32()
}

// set writes a register.
func (s *state) set(r uint8, wide bool, v val) {
	if r >= maxRegs {
		return
	}
	if !wide {
		v = v.mask32()
	}
	s.regs[r] = v
}

// stepA64 applies one instruction that doesn't end the block.
func (it *interp) stepA64(s *state, in *arm64.Inst, at uint64) {
	switch in.Op {
	case arm64.Hint:
	case arm64.SVC:
		s.regs[0] = top
	case arm64.ADR:
		s.set(in.Rd, true, constant(int64(at)+in.Imm))
	case arm64.ADRP:
		s.set(in.Rd, true, constant(int64(pageOf(at, in))))
	case arm64.MOVZ, arm64.MOVN:
		s.set(in.Rd, in.Wide, constant(in.Imm))
	case arm64.MOVK:
		mask := int64(0xffff) << in.Amount
		s.set(in.Rd, in.Wide, pairwise(s.get(in.Rd, in.Wide), constant(in.Imm), func(a, b int64) int64 { return a&^mask | b }))
	case arm64.ADD, arm64.SUB, arm64.AND, arm64.ORR, arm64.EOR, arm64.BIC, arm64.ORN, arm64.EON:
		s.set(in.Rd, in.Wide, it.operate(s, in))
	case arm64.UBFM, arm64.SBFM, arm64.BFM:
		s.set(in.Rd, in.Wide, bitfield(in, s.get(in.Rn, in.Wide)))
	case arm64.CSEL, arm64.CSINC, arm64.CSINV, arm64.CSNEG:
		s.set(in.Rd, in.Wide, s.get(in.Rn, in.Wide).join(selected(in, s.get(in.Rm, in.Wide))))
	case arm64.Literal:
		if !in.Vector {
			s.set(in.Rd, true, extend(in, it.load(s, constant(int64(at)+in.Imm), int(in.Size))))
		}
	case arm64.Load, arm64.Store, arm64.Atomic, arm64.StoreX:
		it.memoryA64(s, in)
	case arm64.Blocks:
		if in.Rd < maxRegs && !in.Maybe {
			it.storeRange(s, s.regs[in.Rd])
		}
		if in.Rn < maxRegs {
			it.storeRange(s, s.regs[in.Rn])
		}
		for _, r := range []uint8{in.Rd, in.Rn, in.Rm} {
			if r < arm64.SP {
				s.regs[r] = top
			}
		}
	default:
		s.set(in.Rd, true, top)
	}
}

var aluA64 = [...]uint8{arm64.ADD: 0, arm64.ORR: 1, arm64.AND: 4, arm64.SUB: 5, arm64.EOR: 6, arm64.BIC: 4, arm64.ORN: 1, arm64.EON: 6}

func (it *interp) operate(s *state, in *arm64.Inst) val {
	a, b := s.get(in.Rn, in.Wide), constant(in.Imm)
	same := false
	if in.Rm != arm64.None {
		b = shifted(in, s.get(in.Rm, in.Wide))
		same = in.Rm == in.Rn && in.Amount == 0 && in.Shift == arm64.LSL && in.Rn != arm64.ZR
	}
	switch in.Op {
	case arm64.BIC, arm64.ORN, arm64.EON:
		b, same = mapKnown(b, func(c int64) int64 { return ^c }), false
	case arm64.ORR, arm64.ADD:
		if in.Rn == arm64.ZR { // mov
			return b
		}
		if c, ok := b.single(); ok && c == 0 {
			return a
		}
	case arm64.SUB:
		if c, ok := b.single(); ok && c == 0 {
			return a
		}
	case arm64.AND:
		// A number fits into 16 bits; callers' values are cut by the kernel's check.
		if c, ok := b.single(); ok && (c == 0xffff || c == 0xffffffff) && onlyParams(a) {
			return a
		}
	}
	return compute(aluA64[in.Op], a, b, same)
}

// onlyParams reports whether a value is a parameter as it is.
func onlyParams(v val) bool {
	for _, a := range v.atoms {
		if a.kind != aParam || a.off != 0 {
			return false
		}
	}
	return !v.top
}

// mapKnown applies f to a value that is constant.
func mapKnown(v val, f func(int64) int64) val {
	return pairwise(v, constant(0), func(a, _ int64) int64 { return f(a) })
}

// shifted is the second operand, shifted or extended.
func shifted(in *arm64.Inst, v val) val {
	n := in.Amount & 63
	switch in.Shift {
	case arm64.LSL, arm64.UXTX, arm64.SXTX:
		if n == 0 {
			return v
		}
		return mapKnown(v, func(a int64) int64 { return a << n })
	case arm64.LSR:
		return mapKnown(v, func(a int64) int64 { return int64(uint64(a) >> n) })
	case arm64.ASR:
		return mapKnown(v, func(a int64) int64 {
			if !in.Wide {
				return int64(int32(a) >> min(n, 31))
			}
			return a >> n
		})
	case arm64.UXTW:
		if n == 0 {
			return v.mask32()
		}
		return mapKnown(v, func(a int64) int64 { return int64(uint32(a)) << n })
	case arm64.SXTW:
		if n == 0 {
			return signExtend(v)
		}
		return mapKnown(v, func(a int64) int64 { return int64(int32(a)) << n })
	case arm64.UXTB:
		return mapKnown(v, func(a int64) int64 { return int64(uint8(a)) << n })
	case arm64.UXTH:
		return mapKnown(v, func(a int64) int64 { return int64(uint16(a)) << n })
	case arm64.SXTB:
		return mapKnown(v, func(a int64) int64 { return int64(int8(a)) << n })
	case arm64.SXTH:
		return mapKnown(v, func(a int64) int64 { return int64(int16(a)) << n })
	}
	return top // ror
}

// bitfield moves a field of bits (sbfm and ubfm; what bfm leaves isn't
// followed).
func bitfield(in *arm64.Inst, v val) val {
	width := 32
	if in.Wide {
		width = 64
	}
	r, last := int(in.Amount), int(in.Imm)
	if in.Op == arm64.BFM || v.top {
		return top
	}
	if r == 0 && last >= 15 {
		if onlyParams(v) {
			return v // the kernel looks at no more bits of a number
		}
		if last == 31 {
			if in.Op == arm64.SBFM {
				return signExtend(v.mask32())
			}
			return v.mask32()
		}
	}
	return mapKnown(v, func(a int64) int64 {
		x := uint64(a)
		size, at := last+1, width-r // shifted left
		if last >= r {
			x, size, at = x>>r, last-r+1, 0
		}
		x <<= 64 - size
		if in.Op == arm64.SBFM {
			return int64(x) >> (64 - size) << at
		}
		return int64(x >> (64 - size) << at)
	})
}

// selected is the second operand of a conditional selection.
func selected(in *arm64.Inst, v val) val {
	switch in.Op {
	case arm64.CSINC:
		return v.addConst(1)
	case arm64.CSINV:
		return mapKnown(v, func(a int64) int64 { return ^a })
	case arm64.CSNEG:
		return mapKnown(v, func(a int64) int64 { return -a })
	}
	return v
}

// extend is what a load puts into a register.
func extend(in *arm64.Inst, v val) val {
	switch {
	case in.Size == 8:
		return v
	case in.Size < 4:
		return top
	case in.Signed:
		return signExtend(v)
	}
	return v.mask32()
}

// addressA64 is the address that a load or store uses.
func (it *interp) addressA64(s *state, in *arm64.Inst) val {
	base := s.get(in.Rn, true)
	switch in.Mode {
	case arm64.Post:
		return base
	case arm64.Register:
		index := s.get(in.Rm, true)
		if in.Shift == arm64.UXTW || in.Shift == arm64.SXTW {
			index = index.mask32()
		}
		consts, ok := shifted(in, index).consts()
		if !ok || len(consts) > maxIndexes {
			if it.watch != nil && (it.watch.near(base) || it.watch.near(index)) {
				it.watch.escapes = true // some place from there on
			}
			return top
		}
		out := val{}
		for _, c := range consts {
			out = out.join(base.addConst(c))
		}
		return out
	}
	return base.addConst(in.Imm)
}

func (it *interp) memoryA64(s *state, in *arm64.Inst) {
	addr := it.addressA64(s, in)
	next := addr
	if in.Mode == arm64.Post {
		next = addr.addConst(in.Imm)
		if in.Rm != arm64.None {
			next = top
		}
	}
	size := int64(in.Size)
	switch in.Op {
	case arm64.Load:
		if !in.Vector {
			// The address register may be the first that is loaded.
			v, w := top, top
			if size <= 8 && !in.Maybe {
				v = extend(in, it.load(s, addr, int(size)))
				if in.Ra != arm64.None {
					w = extend(in, it.load(s, addr.addConst(size), int(size)))
				}
			}
			s.set(in.Rd, true, v)
			s.set(in.Ra, true, w)
		}
	case arm64.Store:
		switch {
		case in.Maybe && in.Mode == arm64.Offset: // vectors of unknown length
			it.storeRange(s, addr)
		case in.Vector:
			n := size
			if in.Ra != arm64.None {
				n *= 2
			}
			it.storeBytes(s, addr, n)
		default:
			it.storeTo(s, addr, size, s.get(in.Rd, size == 8))
			if in.Ra != arm64.None {
				it.storeTo(s, addr.addConst(size), size, s.get(in.Ra, size == 8))
			}
		}
	case arm64.StoreX:
		it.storeBytes(s, addr, size)
		s.set(in.Ra, false, normal([]atom{{aConst, 0, 0}, {aConst, 0, 1}}))
	case arm64.Atomic:
		it.storeBytes(s, addr, max(size, 4))
		if !in.Vector {
			s.set(in.Rd, true, top)
			s.set(in.Ra, true, top)
		}
	}
	if in.Mode == arm64.Pre || in.Mode == arm64.Post {
		s.set(in.Rn, true, next)
	}
}

// storeBytes forgets what lies in some bytes.
func (it *interp) storeBytes(s *state, addr val, n int64) {
	if n <= 8 {
		it.storeTo(s, addr, n, top)
		return
	}
	for d := int64(0); d < n; d += 8 {
		it.storeTo(s, addr.addConst(d), 8, top)
	}
}
