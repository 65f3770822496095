package main

import (
	"debug/elf"

	"github.com/confinehq/confine/pkg/analysis/arm64"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// leadsOn reports whether code does nothing but jump elsewhere, as the stubs of
// a procedure linkage table do: the analysis knows these by what they lead to,
// and reaches that instead. last is the offset of the last instruction.
func leadsOn(machine elf.Machine, code []byte, last int) bool {
	for at := 0; at <= last; {
		if at >= len(code) {
			return false
		}
		n := 0
		switch machine {
		case elf.EM_X86_64:
			n = leadsOnX86(code[at:], x86.Decode)
		case elf.EM_386:
			n = leadsOnX86(code[at:], x86.Decode32)
		case elf.EM_AARCH64:
			n = leadsOnA64(code[at:])
		}
		if n == 0 {
			return false
		}
		at += n
	}
	return true
}

// leadsOnX86 returns the length of an instruction of a stub, 0 for others: a
// landing pad, a push of a constant or of a slot, a jump.
func leadsOnX86(code []byte, decode func([]byte, *x86.Inst) int) int {
	var in x86.Inst
	n := decode(code, &in)
	switch {
	case in.Vector:
	case in.Map == x86.Map0F && (in.Op == 0x1e && in.Rep || in.Op == 0x1f):
		return n
	case in.Map != x86.MapOne:
	case in.Op == 0x90, in.Op == 0x68, in.Op == 0x6a, in.Op == 0xe9, in.Op == 0xeb:
		return n
	case in.Op == 0xff && in.IsMem() && (in.Reg&7 == 4 || in.Reg&7 == 6) && in.Index == x86.None && (in.Base == x86.None || in.Base == x86.RBX):
		return n
	}
	return 0
}

// leadsOnA64 is leadsOnX86 for arm64, whose stubs use x16 and x17 alone.
func leadsOnA64(code []byte) int {
	const save = 0xa9bf7bf0 // stp x16, x30, [sp, #-16]!
	if len(code) < 4 {
		return 0
	}
	w := uint32(code[0]) | uint32(code[1])<<8 | uint32(code[2])<<16 | uint32(code[3])<<24
	var in arm64.Inst
	if w == save {
		return 4
	}
	if !arm64.Decode(w, &in) {
		return 0
	}
	switch {
	case in.Op == arm64.Hint, in.Op == arm64.B:
	case in.Op == arm64.ADRP && in.Rd == 16, in.Op == arm64.ADD && in.Rd == 16 && in.Rn == 16:
	case in.Op == arm64.Load && in.Rd == 17 && in.Rn == 16, in.Op == arm64.BR && in.Rn == 17:
	default:
		return 0
	}
	return 4
}
