package facts

import (
	"debug/elf"
	"strconv"
)

// Loc is a place that holds an argument when a function is entered: a general
// register by its number (0 to 31), or a stack slot at 32+offset/4, offset
// being the distance in bytes from the stack pointer at entry (on x86 the first
// one above the return address is as far as an address is long).
type Loc uint16

// maxRegs is the largest number of general registers of an architecture.
const maxRegs = 32

// StackLoc returns the location at off bytes above the entry stack pointer.
func StackLoc(off int64) (Loc, bool) {
	if off < 0 || off%4 != 0 || off > 8*4096 {
		return 0, false
	}
	return Loc(maxRegs + off/4), true
}

// Stack returns the offset of a stack location.
func (l Loc) Stack() (int64, bool) {
	if l < maxRegs {
		return 0, false
	}
	return int64(l-maxRegs) * 4, true
}

// On names the location as assemblers for a machine do.
func (l Loc) On(machine elf.Machine) string {
	if off, ok := l.Stack(); ok {
		return "stack+" + strconv.FormatInt(off, 10)
	}
	x86 := [...]string{"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"}
	switch {
	case machine == elf.EM_AARCH64:
		return "x" + strconv.Itoa(int(l))
	case int(l) >= len(x86):
		return "r" + strconv.Itoa(int(l))
	case machine == elf.EM_386:
		return "e" + x86[l]
	}
	return "r" + x86[l]
}
