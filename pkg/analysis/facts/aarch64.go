package facts

import (
	"github.com/confinehq/confine/pkg/analysis/arm64"
	"github.com/confinehq/confine/pkg/syscalls"
)

// aarch64 is the 64-bit Arm architecture.
type aarch64 struct{}

// aarch64ABI: Procedure Call Standard for the Arm 64-bit Architecture, section
// 6.1, and for Go the internal ABI specification, "arm64 architecture".
var aarch64ABI = abi{
	calls: syscalls.ARM64,
	regs:  32, sp: arm64.SP, number: 8, word: 8, step: 4,
	args:        []uint8{0, 1, 2, 3, 4, 5, 6, 7},
	goArgs:      []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	goContext:   26,
	kernelArgs:  []uint8{0, 1, 2, 3, 4, 5},
	clobbered:   []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 30},
	goClobbered: []uint8{19, 20, 21, 22, 23, 24, 25, 26, 27},
	anchored:    4096,
}

func (aarch64) abi() *abi { return &aarch64ABI }

// decodeA64 decodes the instruction at the start of code; false when there is
// none. Instructions lie at multiples of 4.
func decodeA64(at uint64, code []byte, in *arm64.Inst) bool {
	if len(code) < 4 || at&3 != 0 {
		*in = arm64.Inst{}
		return false
	}
	return arm64.Decode(le32(code), in)
}

func (aarch64) scan(o *Object, at uint64, code []byte) int {
	var in arm64.Inst
	if !decodeA64(at, code, &in) {
		return 0
	}
	switch in.Op {
	case arm64.B, arm64.BL, arm64.BCond, arm64.CBZ, arm64.CBNZ, arm64.TBZ, arm64.TBNZ:
		o.addJump(at, at+uint64(in.Imm))
	case arm64.BR:
		o.indir = append(o.indir, at)
	case arm64.BLR:
		o.icalls = append(o.icalls, at)
	case arm64.SVC:
		o.sites = append(o.sites, rawSite{at, SiteSyscall})
	case arm64.ADR:
		switch to := at + uint64(in.Imm); {
		case makesPage(at, &in):
		case tableAnchor(at, code, in.Rd):
			o.addRef(at, to, refAddr)
			if o.code(to) {
				o.enter(to, false)
			}
		default:
			o.addAddr(at, to, refAddr)
		}
	case arm64.Literal:
		o.literal(at, at+uint64(in.Imm), in.Size)
	}
	return 4
}

// makesPage reports whether an instruction computes the address of a page: adrp,
// or the adr that linkers put in its place at the end of a page (Arm Cortex-A53
// erratum 843419).
func makesPage(at uint64, in *arm64.Inst) bool {
	return in.Op == arm64.ADRP || in.Op == arm64.ADR && at&0xfff >= 0xff8 && (at+uint64(in.Imm))&0xfff == 0
}

// tableAnchor reports whether the address that an instruction puts into a
// register is what the distances in a jump table are added to.
func tableAnchor(at uint64, code []byte, reg uint8) bool {
	var in arm64.Inst
	sum := uint8(arm64.None)
	for p := 4; p <= 32 && decodeA64(at+uint64(p), code[min(p, len(code)):], &in); p += 4 {
		switch {
		case in.Op == arm64.BR:
			return in.Rn == sum
		case in.Op == arm64.ADD && in.Rm != arm64.None && in.Rn == reg && in.Amount == 2:
			sum = in.Rd
		case in.Writes()>>reg&1 != 0 || controlOf(&in) != ctlNext:
			return false
		}
	}
	return false
}

// literal notes a constant among the code, which may be an address.
func (o *Object) literal(at, to uint64, size uint8) {
	o.addRef(at, to, refLoad)
	if size != 8 {
		return
	}
	if i, ok := o.relocAt[to]; ok {
		if r := &o.File.Relocs[i]; r.Sym < 0 {
			o.addAddr(at, r.Addend, refAddr)
		}
		return
	}
	if v, ok := o.File.U64(to); ok && !o.File.IsPIE {
		o.immediate(at, v)
	}
}

func controlOf(in *arm64.Inst) control {
	switch in.Op {
	case arm64.B:
		return ctlJump
	case arm64.BL:
		return ctlCall
	case arm64.BCond, arm64.CBZ, arm64.CBNZ, arm64.TBZ, arm64.TBNZ:
		return ctlBranch
	case arm64.BR:
		return ctlIJump
	case arm64.BLR:
		return ctlICall
	case arm64.RET:
		return ctlReturn
	case arm64.Trap:
		return ctlTrap
	case arm64.Break, arm64.Privileged:
		return ctlBreak
	}
	return ctlNext
}

func (aarch64) flow(at uint64, code []byte) flow {
	var in arm64.Inst
	if !decodeA64(at, code, &in) {
		return flow{}
	}
	f := flow{n: 4, kind: controlOf(&in)}
	if f.kind == ctlBranch || f.kind == ctlCall || f.kind == ctlJump {
		f.to = at + uint64(in.Imm)
	}
	return f
}

const nopA64 = 0xd503201f

func (aarch64) padding(code []byte) int {
	if len(code) >= 4 && (le32(code) == nopA64 || le32(code) == 0) {
		return 4
	}
	return 0
}

func (aarch64) privileged(code []byte) bool {
	var in arm64.Inst
	return decodeA64(0, code, &in) && in.Op == arm64.Privileged
}

// restorer: rt_sigreturn (139), with its number set right before.
func (aarch64) restorer(o *Object, at uint64) bool {
	b := o.File.Bytes(at-4, 8)
	var in arm64.Inst
	return b != nil && decodeA64(at, b[4:], &in) && in.Op == arm64.SVC && le32(b) == 0xd2801168 // mov x8, #139
}

// compared looks at the next three instructions.
func (aarch64) compared(o *Object, at uint64) bool {
	var in arm64.Inst
	code := o.File.From(at)
	if !decodeA64(at, code, &in) {
		return false
	}
	reg := in.Rd
	for p := 4; p <= 12 && decodeA64(at+uint64(p), code[min(p, len(code)):], &in); p += 4 {
		if in.Op == arm64.SUB && in.Flags && in.Rd == arm64.ZR && in.Rm != arm64.None && (in.Rn == reg || in.Rm == reg) {
			return true
		}
		if in.Writes()>>reg&1 != 0 || controlOf(&in) != ctlNext {
			return false
		}
	}
	return false
}

// pltSlot: adrp x16, slot; ldr x17, [x16, slot]; add x16, x16, slot; br x17,
// perhaps with a landing pad before and an authentication within (the
// supplement to the ABI for AArch64, "Procedure Linkage Table").
func (aarch64) pltSlot(o *Object, addr uint64) (uint64, bool) {
	slot, _, ok := pltStub(addr, o.File.From(addr))
	if !ok {
		return 0, false
	}
	if _, ok := o.relocAt[slot]; !ok {
		return 0, false
	}
	return slot, true
}

// pltStub returns the slot of a stub and the length of its code.
func pltStub(addr uint64, code []byte) (slot uint64, size int, ok bool) {
	var in arm64.Inst
	p := 0
	if decodeA64(addr, code, &in) && in.Op == arm64.Hint { // bti c
		p = 4
	}
	at := addr + uint64(p)
	if !decodeA64(at, code[min(p, len(code)):], &in) || in.Op != arm64.ADRP || in.Rd != 16 {
		return 0, 0, false
	}
	page := pageOf(at, &in)
	p += 4
	if !decodeA64(at+4, code[min(p, len(code)):], &in) || in.Op != arm64.Load || in.Rn != 16 || in.Rd != 17 || in.Size != 8 || in.Mode != arm64.Offset || in.Vector {
		return 0, 0, false
	}
	slot = page + uint64(in.Imm)
	for p += 4; p <= 24 && decodeA64(addr+uint64(p), code[min(p, len(code)):], &in); p += 4 {
		switch {
		case in.Op == arm64.BR && in.Rn == 17:
			return slot, p + 4, true
		case in.Op == arm64.ADD && in.Rd == 16, in.Op == arm64.Hint:
		default:
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// pageOf is the address that adr or adrp computes.
func pageOf(at uint64, in *arm64.Inst) uint64 {
	if in.Op == arm64.ADR {
		return at + uint64(in.Imm)
	}
	return at&^0xfff + uint64(in.Imm)
}

// pltHead: stp x16, x30, [sp, #-16]!, perhaps behind a landing pad.
func (aarch64) pltHead(code []byte) bool {
	const save = 0xa9bf7bf0
	return len(code) >= 8 && (le32(code) == save || le32(code) == 0xd503245f && le32(code[4:]) == save)
}

func (aarch64) access(code []byte) access {
	var in arm64.Inst
	if !decodeA64(0, code, &in) {
		return access{}
	}
	switch in.Op {
	case arm64.Store:
		a := access{store: true, width: uint64(in.Size), reg: in.Rd}
		if in.Ra != arm64.None {
			a.width *= 2
		}
		a.plain = !in.Vector && in.Ra == arm64.None && in.Size >= 4 && in.Size <= 8 && in.Mode == arm64.Offset
		a.hasImm = in.Rd == arm64.ZR
		return a
	case arm64.Atomic, arm64.StoreX:
		return access{store: true, width: 64}
	case arm64.Blocks:
		return access{store: true, width: 4096}
	}
	return access{}
}

func (aarch64) scalar(code []byte, size uint64) bool {
	var in arm64.Inst
	return decodeA64(0, code, &in) && (in.Op == arm64.Load || in.Op == arm64.Store) && !in.Vector &&
		in.Ra == arm64.None && in.Size >= 4 && uint64(in.Size) <= size
}

// readsAtEntry: only straight code that writes the register first is known not
// to.
func (aarch64) readsAtEntry(o *Object, addr uint64, r uint8) bool {
	var in arm64.Inst
	for range 64 {
		if !decodeA64(addr, o.File.From(addr), &in) || controlOf(&in) != ctlNext || in.Op == arm64.SVC || in.Maybe || in.Op == arm64.Blocks || in.Op == arm64.Atomic {
			return true
		}
		reads := []uint8{in.Rn, in.Rm}
		switch in.Op {
		case arm64.Store, arm64.StoreX:
			if !in.Vector {
				reads = append(reads, in.Rd, in.Ra)
			}
		case arm64.Load:
		case arm64.MOVK, arm64.BFM:
			reads = append(reads, in.Rd)
		default:
			reads = append(reads, in.Ra)
		}
		for _, x := range reads {
			if x == r {
				return true
			}
		}
		if in.Writes()>>r&1 != 0 {
			return false
		}
		addr += 4
	}
	return true
}
