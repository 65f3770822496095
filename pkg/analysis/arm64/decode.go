// Package arm64 decodes A64 machine code as far as a call graph and the value
// analysis need it: control flow, operands of the integer instructions and of
// all loads and stores, and which general registers any other one writes.
//
// Source of the encodings: Arm Architecture Reference Manual for A-profile
// architecture (DDI 0487), chapter C4.
package arm64

// Register numbers. 0 to 30 are the general registers.
const (
	SP   = 31
	ZR   = 32   // reads as zero, writes are dropped
	None = 0xff // no such operand
	LR   = 30
)

// Op is what an instruction does.
type Op uint8

// Operations. What isn't named is Other: it may write Rd and nothing else, or
// no general register when Rd is None.
const (
	Undefined Op = iota
	Other
	Hint // no effect: nop, bti, barriers, prefetches

	B     // to Imm bytes from here
	BCond // the same, on Cond
	CBZ   // on Rn being zero
	CBNZ
	TBZ
	TBNZ
	BL
	BR // through Rn
	BLR
	RET
	SVC
	Trap       // udf, brk #1000 and the like: nothing follows
	Break      // brk, hlt
	Privileged // faults in user mode

	ADR  // Rd = here + Imm
	ADRP // Rd = page of here + Imm
	ADD  // Rd = Rn + Imm, or + Rm shifted or extended
	SUB
	AND
	ORR
	EOR
	BIC
	ORN
	EON
	MOVZ // Rd = Imm
	MOVN // Rd = Imm (inverted already)
	MOVK // Rd = Rd with 16 bits at Amount replaced by Imm
	SBFM // Amount is immr, Imm is imms
	BFM
	UBFM
	CSEL  // Rd = Rn or Rm
	CSINC // Rd = Rn or Rm + 1
	CSINV // Rd = Rn or ^Rm
	CSNEG // Rd = Rn or -Rm

	Load    // Rd (and Ra of a pair) = memory
	Store   // memory = Rd (and Ra)
	Literal // Rd = memory at here + Imm
	Atomic  // memory changes; Rd gets what was there
	StoreX  // store exclusive of Rd: Ra gets 0 or 1
	Blocks  // memory from Rn on changes, of unknown length; Rd, Rn and Rm are written
)

// Mode is how a load or store makes its address.
type Mode uint8

// Addressing modes.
const (
	Offset   Mode = iota // Rn + Imm
	Pre                  // Rn += Imm before
	Post                 // Rn += Imm (or Rm) afterwards
	Register             // Rn + Rm, extended and shifted
)

// Shift kinds and extensions of Rm.
const (
	LSL = iota
	LSR
	ASR
	ROR
	UXTB
	UXTH
	UXTW
	UXTX
	SXTB
	SXTH
	SXTW
	SXTX
)

// Inst is one decoded instruction.
type Inst struct {
	Imm    int64
	Op     Op
	Rd     uint8 // destination; the transferred register of loads and stores
	Rn     uint8 // first operand, base of an address
	Rm     uint8 // second operand, index of an address; None with an immediate
	Ra     uint8 // second register of a pair
	Cond   uint8
	Mode   Mode
	Shift  uint8 // of Rm
	Amount uint8
	Size   uint8 // bytes of each transferred register; 64 at most for several
	Wide   bool  // 64 bits
	Signed bool  // a load sign-extends
	Vector bool  // Rd and Ra are vector registers
	Flags  bool  // sets the condition flags
	Maybe  bool  // what Rd is isn't known: it may be written
}

// Writes returns the general registers that an instruction writes for sure, as
// a set of bits; a call's are its callee's and not among them.
func (in *Inst) Writes() uint32 {
	w := uint32(0)
	add := func(r uint8) {
		if r <= SP {
			w |= 1 << r
		}
	}
	switch in.Op {
	case BL, BLR:
		add(LR)
	case Store:
	case Load, Literal, Atomic:
		if !in.Vector {
			add(in.Rd)
			add(in.Ra)
		}
	case StoreX:
		add(in.Ra)
	case Blocks:
		add(in.Rd)
		add(in.Rn)
		add(in.Rm)
	case Hint, Undefined, B, BCond, CBZ, CBNZ, TBZ, TBNZ, BR, RET, SVC, Trap, Break, Privileged:
	default:
		if !in.Maybe {
			add(in.Rd)
		}
	}
	if in.Mode == Pre || in.Mode == Post {
		add(in.Rn)
	}
	return w
}

// Decode decodes one instruction word; false when it is none.
func Decode(w uint32, in *Inst) bool {
	*in = Inst{Op: Other, Rd: None, Rn: None, Rm: None, Ra: None, Wide: w>>31 != 0}
	switch w >> 25 & 15 {
	case 0: // reserved, SME
		switch {
		case w>>16 == 0:
			in.Op = Trap
		case w>>31 == 0:
			in.Op = Undefined
		default:
			scalable(w, in)
		}
	case 2:
		scalable(w, in)
	case 8, 9:
		immediate(w, in)
	case 10, 11:
		branch(w, in)
	case 4, 6, 12, 14:
		memory(w, in)
	case 5, 13:
		register(w, in)
	case 7, 15:
		vector(w, in)
	default:
		in.Op = Undefined
	}
	return in.Op != Undefined
}

func sext(v uint32, bits uint) int64 { return int64(uint64(v)<<(64-bits)) >> (64 - bits) }

// sp and zr read a register field whose value 31 means the one or the other.
func sp(w uint32, at uint) uint8 { return uint8(w >> at & 31) }

func zr(w uint32, at uint) uint8 {
	if r := uint8(w >> at & 31); r != 31 {
		return r
	}
	return ZR
}

// scalable is SVE and SME: vector work, of which some writes a general register
// in the lowest field or memory behind the base in the next one.
func scalable(w uint32, in *Inst) {
	if w&0xffa0f800 == 0x04205000 { // addvl, addpl
		in.Rd, in.Rn = sp(w, 0), sp(w, 16)
		return
	}
	if w>>29 == 7 && w>>25&15 == 2 { // contiguous and scatter stores
		in.Op, in.Rn, in.Size, in.Vector, in.Maybe = Store, sp(w, 5), 64, true, true
		return
	}
	in.Rd, in.Maybe = uint8(w&31), true
	if in.Rd == SP {
		in.Rd = ZR
	}
}

func immediate(w uint32, in *Inst) {
	switch w >> 23 & 7 {
	case 0, 1:
		in.Rd = zr(w, 0)
		in.Imm = sext(w>>5&0x7ffff<<2|w>>29&3, 21)
		in.Op, in.Wide = ADR, true
		if w>>31 != 0 {
			in.Op, in.Imm = ADRP, in.Imm<<12
		}
	case 2:
		in.Op = ADD
		if w>>30&1 != 0 {
			in.Op = SUB
		}
		in.Rn = sp(w, 5)
		in.setFlags(w, w>>29&1 != 0)
		in.Imm = int64(w >> 10 & 0xfff)
		if w>>22&1 != 0 {
			in.Imm <<= 12
		}
	case 3: // tags, minima and maxima
		in.Rd, in.Rn = sp(w, 0), sp(w, 5)
		if w>>22&1 != 0 {
			in.Rd = zr(w, 0)
		}
	case 4:
		in.Op = []Op{AND, ORR, EOR, AND}[w>>29&3]
		in.Rn = zr(w, 5)
		in.setFlags(w, w>>29&3 == 3)
		v, ok := bitmask(w>>22&1, w>>16&63, w>>10&63, in.Wide)
		if !ok {
			in.Op = Undefined
		}
		in.Imm = int64(v)
	case 5:
		in.Rd = zr(w, 0)
		hw := w >> 21 & 3
		if !in.Wide && hw > 1 {
			in.Op = Undefined
			return
		}
		in.Imm = int64(w>>5&0xffff) << (16 * hw)
		in.Amount = uint8(16 * hw)
		switch w >> 29 & 3 {
		case 0:
			in.Op, in.Imm = MOVN, ^in.Imm
		case 2:
			in.Op = MOVZ
		case 3:
			in.Op = MOVK
		default:
			in.Op = Undefined
		}
	case 6:
		in.Op = []Op{SBFM, BFM, UBFM, Undefined}[w>>29&3]
		in.Rd, in.Rn = zr(w, 0), zr(w, 5)
		in.Amount, in.Imm = uint8(w>>16&63), int64(w>>10&63)
		if (w>>22&1 != 0) != in.Wide || !in.Wide && (in.Amount > 31 || in.Imm > 31) {
			in.Op = Undefined
		}
	case 7:
		in.Rd, in.Rn, in.Rm = zr(w, 0), zr(w, 5), zr(w, 16)
		if w>>29&3 == 3 { // return addresses signed with an immediate: x16, x17, lr
			in.Rd = LR
		}
	}
}

// setFlags sets the destination: only an instruction without flags can write
// the stack pointer.
func (in *Inst) setFlags(w uint32, flags bool) {
	in.Flags = flags
	in.Rd = sp(w, 0)
	if flags {
		in.Rd = zr(w, 0)
	}
}

// bitmask decodes the immediate of logical instructions (DecodeBitMasks).
func bitmask(n, immr, imms uint32, wide bool) (uint64, bool) {
	if !wide && n != 0 {
		return 0, false
	}
	length := uint(6)
	for bits := n<<6 | ^imms&63; length > 0 && bits>>length&1 == 0; {
		length--
	}
	if length == 0 {
		return 0, false
	}
	size := uint(1) << length
	s, r := uint(imms)&(size-1), uint(immr)&(size-1)
	if s == size-1 {
		return 0, false
	}
	v := uint64(1)<<(s+1) - 1
	mask := ^uint64(0) >> (64 - size)
	v = (v>>r | v<<(size-r)) & mask
	for ; size < 64; size *= 2 {
		v |= v << size
	}
	if !wide {
		v = uint64(uint32(v))
	}
	return v, true
}

func branch(w uint32, in *Inst) {
	switch {
	case w>>26&31 == 5:
		in.Op, in.Imm = B, sext(w&0x3ffffff, 26)*4
		if w>>31 != 0 {
			in.Op = BL
		}
	case w>>24 == 0x54:
		in.Op, in.Imm, in.Cond = BCond, sext(w>>5&0x7ffff, 19)*4, uint8(w&15)
	case w>>25&63 == 0x1a:
		in.Op, in.Imm, in.Rn = CBZ, sext(w>>5&0x7ffff, 19)*4, zr(w, 0)
		if w>>24&1 != 0 {
			in.Op = CBNZ
		}
	case w>>25&63 == 0x1b:
		in.Op, in.Imm, in.Rn = TBZ, sext(w>>5&0x3fff, 14)*4, zr(w, 0)
		if w>>24&1 != 0 {
			in.Op = TBNZ
		}
	case w>>24 == 0xd4:
		exception(w, in)
	case w>>22 == 0x354:
		system(w, in)
	case w>>22 == 0x355:
		in.Rd = zr(w, 0) // 128-bit system registers
		in.Op = Privileged
	case w>>25 == 0x6b:
		branchRegister(w, in)
	case w>>25 == 0x3a: // compare and branch on two registers (FEAT_CMPBR)
		in.Op, in.Imm, in.Rn = BCond, sext(w>>5&0x1ff, 9)*4, zr(w, 0)
	default:
		if w>>24&0x7f == 0x74 || w>>24&0x7f == 0x75 {
			in.Op, in.Imm, in.Rn = BCond, sext(w>>5&0x1ff, 9)*4, zr(w, 0)
			return
		}
		in.Op = Undefined
	}
}

func exception(w uint32, in *Inst) {
	switch opc, ll := w>>21&7, w&31; {
	case opc == 0 && ll == 1:
		in.Op = SVC
	case opc == 0 && (ll == 2 || ll == 3), opc == 5 && ll >= 1 && ll <= 3:
		in.Op = Privileged
	case opc == 1 && ll == 0:
		in.Op = Break
		if w>>5&0xffff == 1000 { // what compilers emit for __builtin_trap
			in.Op = Trap
		}
	case opc == 2 && ll == 0:
		in.Op = Break
	case opc == 3 && ll == 0: // tcancel
	default:
		in.Op = Undefined
	}
}

func system(w uint32, in *Inst) {
	op0, op1, crn, crm, op2 := w>>19&3, w>>16&7, w>>12&15, w>>8&15, w>>5&7
	if w>>21&1 != 0 { // mrs, sysl
		in.Rd = zr(w, 0)
		return
	}
	in.Op = Hint
	switch {
	case op0 == 1: // sys
		switch {
		case op1 != 3:
			in.Op = Privileged
		case crn == 7 && crm == 4 && (op2 == 1 || op2 == 3 || op2 == 4): // dc zva, gva, gzva
			in.Op, in.Rn = Blocks, zr(w, 0)
			in.Rn = uint8(w & 31)
			if in.Rn == 31 {
				in.Op, in.Rn = Hint, None
			}
			in.Maybe = true
		}
	case op0 >= 2:
		if op1 != 3 {
			in.Op = Privileged
		}
	case op0 == 0 && op1 != 3 && crn == 4: // msr immediate
		if op1 != 0 || op2 > 2 {
			in.Op = Privileged
		}
	case op0 == 0 && op1 == 3 && crn == 2:
		// Pointer authentication with fixed registers changes signatures alone.
	}
}

func branchRegister(w uint32, in *Inst) {
	opc, op2, op3, op4 := w>>21&15, w>>16&31, w>>10&63, w&31
	in.Rn = zr(w, 5)
	if op2 != 31 || op3 != 0 && op3 != 2 && op3 != 3 || op3 == 0 && op4 != 0 {
		in.Op = Undefined
		if op2 == 31 && opc == 2 { // retaasppc and the like
			in.Op, in.Rn = RET, LR
		}
		return
	}
	switch opc {
	case 0, 8:
		in.Op = BR
	case 1, 9:
		in.Op = BLR
	case 2:
		in.Op = RET
		if op3 != 0 {
			in.Rn = LR
		}
	case 4, 5:
		in.Op = Privileged
	default:
		in.Op = Undefined
	}
}

func register(w uint32, in *Inst) {
	in.Rd, in.Rn, in.Rm = zr(w, 0), zr(w, 5), zr(w, 16)
	switch {
	case w>>28&1 == 0 && w>>24&1 == 0: // logical, shifted
		in.Op = [8]Op{AND, BIC, ORR, ORN, EOR, EON, AND, BIC}[w>>29&3<<1|w>>21&1]
		in.Flags = w>>29&3 == 3
		in.Shift, in.Amount = uint8(w>>22&3), uint8(w>>10&63)
		if !in.Wide && in.Amount > 31 {
			in.Op = Undefined
		}
	case w>>28&1 == 0:
		in.Op = ADD
		if w>>30&1 != 0 {
			in.Op = SUB
		}
		in.Flags = w>>29&1 != 0
		if w>>21&1 == 0 {
			in.Shift, in.Amount = uint8(w>>22&3), uint8(w>>10&63)
			if in.Shift == ROR || !in.Wide && in.Amount > 31 {
				in.Op = Undefined
			}
			return
		}
		in.Rn = sp(w, 5)
		in.setFlags(w, in.Flags)
		in.Shift, in.Amount = UXTB+uint8(w>>13&7), uint8(w>>10&7)
		if in.Amount > 4 || w>>22&3 != 0 {
			in.Op = Undefined
		}
	default:
		registerMore(w, in)
	}
}

func registerMore(w uint32, in *Inst) {
	switch k := w >> 21 & 15; {
	case k == 0: // with carry; flag manipulation
		if w>>10&63 != 0 {
			in.Rd = None
			if w>>10&63 == 8 || w>>13&7 == 1 { // addpt, subpt
				in.Rd = sp(w, 0)
			}
			if w>>10&31 == 1 || w>>10&15 == 2 {
				in.Rd = None
			}
		}
	case k == 2: // conditional compare
		in.Rd, in.Flags = None, true
	case k == 4:
		op := [4]Op{CSEL, CSINC, CSINV, CSNEG}[w>>30&1<<1|w>>10&1]
		in.Op, in.Cond = op, uint8(w>>12&15)
		if w>>11&1 != 0 || w>>29&1 != 0 {
			in.Op = Undefined
		}
	case k == 6:
		if w>>30&1 == 0 && w>>10&63 == 4 { // irg
			in.Rd, in.Rn = sp(w, 0), sp(w, 5)
		}
		if w>>30&1 != 0 {
			in.Rm = None
		}
	case k >= 8: // three sources
		in.Ra = zr(w, 10)
	default:
		in.Op = Undefined
	}
}

// vector is SIMD and floating point; few write a general register.
func vector(w uint32, in *Inst) {
	switch {
	case w&0x5f20fc00 == 0x1e200000: // conversions to and from integers
		op, rmode := w>>16&7, w>>19&3
		if op <= 1 || op == 4 || op == 5 || op == 6 {
			in.Rd = zr(w, 0)
		}
		if rmode == 0 && (op == 2 || op == 3) || op == 7 {
			in.Rd = None
		}
	case w&0x5f200000 == 0x1e000000: // fixed point
		if op := w >> 16 & 7; op <= 1 {
			in.Rd = zr(w, 0)
		}
	case w&0xbfe0fc00 == 0x0e003c00, w&0xbfe0fc00 == 0x0e002c00: // umov, smov
		in.Rd = zr(w, 0)
	}
}
