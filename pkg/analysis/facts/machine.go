package facts

import (
	"debug/elf"

	"github.com/confinehq/confine/pkg/syscalls"
)

// control says what an instruction does with control.
type control uint8

const (
	ctlNext   control = iota // it runs on to the next instruction
	ctlBranch                // conditional jump to a fixed place
	ctlCall                  // call of a fixed place
	ctlJump                  // jump to a fixed place
	ctlICall                 // call through a register or memory
	ctlIJump                 // jump through a register or memory
	ctlReturn
	ctlTrap  // nothing ever follows
	ctlBreak // a debugger's, or one that no program executes
)

// ends reports whether the next instruction is reached only from elsewhere; a
// call ends a function when nothing follows it.
func (c control) ends() bool { return c >= ctlCall }

// flow is one instruction as far as control goes.
type flow struct {
	n    int // bytes; 0 when they are no instruction
	kind control
	to   uint64 // of a fixed place
}

// access is what an instruction does to the memory that it names.
type access struct {
	store bool
	// plain is set for a move of at least 4 bytes to the named address alone,
	// from register reg, or of the constant imm when hasImm is set.
	plain  bool
	hasImm bool
	reg    uint8
	imm    int64
	width  uint64 // an upper bound of the bytes that are written
}

// abi holds the registers by their roles.
type abi struct {
	calls  syscalls.Arch
	regs   int   // general registers, the stack pointer included
	sp     uint8 // stack pointer
	number uint8 // holds a system call's number
	// pushed is what a call puts on the stack, in bytes.
	pushed int64
	word   int64 // bytes of an address, and of an argument on the stack
	step   int   // bytes from one undecodable place to the next
	// args are the registers in which the C convention passes arguments, in
	// their order; goArgs are those in which either convention does.
	// Without args, they are on the stack.
	args, goArgs []uint8
	// goContext is the register in which Go's closures get what they captured.
	goContext uint8
	// kernelArgs are those in which a system call has its arguments; nil when
	// they aren't looked at.
	kernelArgs []uint8
	// clobbered are the registers that a C function may change; goClobbered are
	// the others that a Go function may change, too.
	clobbered, goClobbered []uint8
	// anchored is how far behind an address that code computes it may reach
	// other variables with it, in bytes; 0 when each is named by itself.
	anchored uint64
}

// machine is what differs from one architecture to another.
type machine interface {
	abi() *abi
	// scan notes where one instruction leads, and returns its length in bytes,
	// 0 when the bytes are none.
	scan(o *Object, at uint64, code []byte) int
	// addresses notes what several instructions compute together, once all are
	// decoded.
	addresses(o *Object)
	flow(at uint64, code []byte) flow
	// padding returns the length of an instruction that fills space between
	// functions, 0 when it isn't one.
	padding(code []byte) int
	// privileged reports whether an instruction faults in user mode.
	privileged(code []byte) bool
	// restorer reports whether an instruction is the system call of a signal
	// restorer, which never returns.
	restorer(o *Object, at uint64) bool
	// compared reports whether the address that an instruction computes is only
	// compared.
	compared(o *Object, at uint64) bool
	// pltSlot returns the slot that a stub of the procedure linkage table at an
	// address jumps through.
	pltSlot(o *Object, addr uint64) (uint64, bool)
	// pltHead reports whether code is the head of that table.
	pltHead(code []byte) bool
	// jumpTables reads the jump tables of a function that holds computed jumps;
	// refs are its references, bounds what code names of data.
	jumpTables(o *Object, fn *Func, self int, refs []ref, bounds []uint64)
	access(code []byte) access
	// scalar reports whether an instruction moves at most size bytes from or to
	// the memory that it names.
	scalar(code []byte, size uint64) bool
	// readsAtEntry reports whether the code at an address may read a register
	// before it writes it.
	readsAtEntry(o *Object, addr uint64, r uint8) bool
	// block interprets the code from a join point to the end of the block.
	block(it *interp, at uint64)
}

// machineOf returns the machine of an ELF header, nil when its code isn't
// analysed.
func machineOf(m elf.Machine, c elf.Class) machine {
	switch {
	case m == elf.EM_X86_64 && c == elf.ELFCLASS64:
		return amd64{}
	case m == elf.EM_AARCH64 && c == elf.ELFCLASS64:
		return aarch64{}
	case m == elf.EM_386 && c == elf.ELFCLASS32:
		return i386{}
	}
	return nil
}

// Arch returns the table of system calls of programs with a header, and false
// when their code isn't analysed.
func (h Header) Arch() (syscalls.Arch, bool) {
	mach := machineOf(h.Machine, h.Class)
	if mach == nil {
		return "", false
	}
	return mach.abi().calls, true
}

// Argument returns the location of a C function's argument, counted from 0.
func Argument(m elf.Machine, n int) Loc {
	class := elf.ELFCLASS64
	if m == elf.EM_386 {
		class = elf.ELFCLASS32
	}
	mach := machineOf(m, class)
	if mach == nil {
		return 0
	}
	return mach.abi().argument(n)
}

// argument is the location of a C function's argument, 0 when none is known.
func (a *abi) argument(n int) Loc {
	if a.args == nil {
		l, _ := StackLoc(a.pushed + int64(n)*a.word)
		return l
	}
	if n >= len(a.args) {
		return 0
	}
	return Loc(a.args[n])
}

// mover is a machine that tells what an instruction does to the general
// registers; it may say that it can't tell.
type mover interface{ move(code []byte) move }
