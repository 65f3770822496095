package seccomp

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/confinehq/confine/pkg/syscalls"
)

// AUDIT_ARCH_* of linux/audit.h.
const (
	auditX8664   = 0xc000003e
	auditX86     = 0x40000003
	auditAArch64 = 0xc00000b7
)

// x32Bit is __X32_SYSCALL_BIT: with it, a number belongs to the x32 table.
const x32Bit = 0x40000000

// Verdicts of a filter, SECCOMP_RET_* of linux/seccomp.h; the lower 16 bits
// of retErrno hold the errno.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retActionMask  = 0xffff0000
)

// maxInstructions is BPF_MAXINSNS of the kernel.
const maxInstructions = 4096

// Offsets in struct seccomp_data, in bytes.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
	sizeData   = 64
)

// Program is a compiled profile.
type Program struct {
	code []bpf.Instruction
}

// Compile turns a profile into the filter that the kernel runs, for a little
// endian machine. A call of an architecture that the profile doesn't name
// kills the process, as libseccomp has it.
func Compile(p *Profile) (*Program, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("compile profile: %w", err)
	}
	c := compiler{p: p}
	c.emit(bpf.LoadAbsolute{Off: offsetArch, Size: 4})
	for _, name := range p.Architectures {
		arch, _ := archTable(name)
		body := c.architecture(arch)
		c.emit(bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch(arch), SkipTrue: 1})
		c.emit(bpf.Jump{Skip: uint32(len(body))})
		c.emit(body...)
	}
	c.emit(bpf.RetConstant{Val: retKillProcess})
	if len(c.code) > maxInstructions {
		return nil, fmt.Errorf("compile profile: %d instructions are more than the kernel's limit of %d", len(c.code), maxInstructions)
	}
	return &Program{code: c.code}, nil
}

// Raw returns the instructions as the kernel takes them.
func (p *Program) Raw() ([]bpf.RawInstruction, error) { return bpf.Assemble(p.code) }

type compiler struct {
	p    *Profile
	code []bpf.Instruction
}

func (c *compiler) emit(in ...bpf.Instruction) { c.code = append(c.code, in...) }

// architecture is the code for the calls of one table; it ends in a verdict.
func (c *compiler) architecture(arch syscalls.Arch) []bpf.Instruction {
	code := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetNr, Size: 4}}
	if arch == syscalls.AMD64 {
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1},
			bpf.RetConstant{Val: retKillProcess})
	}
	for _, call := range syscalls.All(arch) {
		body := c.call(call.Name)
		if body == nil {
			continue
		}
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(call.Nr), SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(body))})
		code = append(code, body...)
	}
	return append(code, bpf.RetConstant{Val: verdict(c.p.DefaultAction, c.p.DefaultErrnoRet)})
}

// call is the code for one call, nil when no rule names it. Rules that allow
// come first, because any of them is enough.
func (c *compiler) call(name string) []bpf.Instruction {
	var code []bpf.Instruction
	for _, allow := range []bool{true, false} {
		for _, r := range c.p.Syscalls {
			if (r.Action == ActAllow) != allow || !contains(r.Names, name) {
				continue
			}
			code = append(code, rule(r)...)
			if len(r.Args) == 0 {
				return code
			}
		}
	}
	if code == nil {
		return nil
	}
	return append(code, bpf.RetConstant{Val: verdict(c.p.DefaultAction, c.p.DefaultErrnoRet)})
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// rule gives its verdict when all conditions hold, and falls through
// otherwise.
func rule(r Rule) []bpf.Instruction {
	code := []bpf.Instruction{bpf.RetConstant{Val: verdict(r.Action, r.ErrnoRet)}}
	for i := len(r.Args) - 1; i >= 0; i-- {
		code = append(condition(r.Args[i], len(code)), code...)
	}
	return code
}

// condition tests one argument, high word first. It falls through when it
// holds and skips rest instructions behind it when it doesn't.
func condition(c Condition, rest int) []bpf.Instruction {
	low, high := offsetArgs+8*uint32(c.Index), offsetArgs+8*uint32(c.Index)+4
	// A long skip doesn't fit a conditional jump: "no" is a jump of its own,
	// "yes" skips it.
	type jump = bpf.JumpIf
	lo, hi := uint32(c.Value), uint32(c.Value>>32)
	skip := bpf.Jump{Skip: uint32(rest)}
	load := func(off uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: off, Size: 4} }
	switch c.Op {
	case MaskedEqual:
		mlo, mhi := lo, hi
		lo, hi = uint32(c.ValueTwo), uint32(c.ValueTwo>>32)
		return []bpf.Instruction{
			load(high), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mhi}, jump{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 3},
			load(low), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mlo}, jump{Cond: bpf.JumpEqual, Val: lo, SkipTrue: 1},
			skip,
		}
	case Equal:
		return []bpf.Instruction{
			load(high), jump{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2},
			load(low), jump{Cond: bpf.JumpEqual, Val: lo, SkipTrue: 1},
			skip,
		}
	case NotEqual:
		return []bpf.Instruction{
			load(high), jump{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 3},
			load(low), jump{Cond: bpf.JumpEqual, Val: lo, SkipFalse: 1},
			skip,
		}
	case Greater, GreaterEqual:
		test := bpf.JumpGreaterThan
		if c.Op == GreaterEqual {
			test = bpf.JumpGreaterOrEqual
		}
		return []bpf.Instruction{
			load(high), jump{Cond: bpf.JumpGreaterThan, Val: hi, SkipTrue: 4}, jump{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2},
			load(low), jump{Cond: test, Val: lo, SkipTrue: 1},
			skip,
		}
	default: // Less, LessEqual: the opposite of the above
		test := bpf.JumpGreaterOrEqual
		if c.Op == LessEqual {
			test = bpf.JumpGreaterThan
		}
		return []bpf.Instruction{
			load(high), jump{Cond: bpf.JumpGreaterThan, Val: hi, SkipTrue: 3}, jump{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 3},
			load(low), jump{Cond: test, Val: lo, SkipFalse: 1},
			skip,
		}
	}
}

func verdict(a Action, errno *uint) uint32 {
	switch a {
	case ActAllow:
		return retAllow
	case ActErrno:
		return retErrno | uint32(errnoOf(errno))
	case ActLog:
		return retLog
	case ActTrap:
		return retTrap
	case ActKill, ActKillThread:
		return retKillThread
	default:
		return retKillProcess
	}
}

func auditArch(arch syscalls.Arch) uint32 {
	switch arch {
	case syscalls.AMD64:
		return auditX8664
	case syscalls.I386:
		return auditX86
	default:
		return auditAArch64
	}
}

// Outcome is what a filter says to one call.
type Outcome struct {
	Action Action
	// Errno is what the program sees, with ActErrno.
	Errno uint
}

// Run gives one call, of a table's architecture, to the filter.
func (p *Program) Run(arch syscalls.Arch, nr int, args ...uint64) (Outcome, error) {
	vm, err := bpf.NewVM(p.code)
	if err != nil {
		return Outcome{}, fmt.Errorf("run filter: %w", err)
	}
	// The VM loads words in network order, the kernel in its own: here each
	// word is in network order, and the low word of an argument comes first.
	data := make([]byte, sizeData)
	binary.BigEndian.PutUint32(data[offsetNr:], uint32(nr))
	binary.BigEndian.PutUint32(data[offsetArch:], auditArch(arch))
	for i, v := range args {
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], uint32(v))
		binary.BigEndian.PutUint32(data[offsetArgs+8*i+4:], uint32(v>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		return Outcome{}, fmt.Errorf("run filter: %w", err)
	}
	return outcome(uint32(got)), nil
}

func outcome(v uint32) Outcome {
	switch v & retActionMask {
	case retAllow:
		return Outcome{Action: ActAllow}
	case retErrno:
		return Outcome{Action: ActErrno, Errno: uint(v &^ retActionMask)}
	case retLog:
		return Outcome{Action: ActLog}
	case retTrap:
		return Outcome{Action: ActTrap}
	case retKillThread:
		return Outcome{Action: ActKillThread}
	}
	return Outcome{Action: ActKillProcess}
}
