package seccomp

import (
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/syscalls"
)

// Action is what happens to a call, by its OCI name.
type Action string

// Actions that Confine writes and reads.
const (
	ActAllow       Action = "SCMP_ACT_ALLOW"
	ActErrno       Action = "SCMP_ACT_ERRNO"
	ActLog         Action = "SCMP_ACT_LOG"
	ActTrap        Action = "SCMP_ACT_TRAP"
	ActKill        Action = "SCMP_ACT_KILL"
	ActKillThread  Action = "SCMP_ACT_KILL_THREAD"
	ActKillProcess Action = "SCMP_ACT_KILL_PROCESS"
)

// Errno values that a refused call gets.
const (
	// EPERM says "you may not".
	EPERM uint = 1
	// ENOSYS says "this kernel has no such call", upon which a libc takes the
	// older one.
	ENOSYS uint = 38
)

// Architectures in OCI's words.
const (
	ArchX8664   = "SCMP_ARCH_X86_64"
	ArchX86     = "SCMP_ARCH_X86"
	ArchAArch64 = "SCMP_ARCH_AARCH64"
)

// Op compares one argument, by its OCI name.
type Op string

// Operators. MaskedEqual holds when argument & Value == ValueTwo.
const (
	NotEqual     Op = "SCMP_CMP_NE"
	Less         Op = "SCMP_CMP_LT"
	LessEqual    Op = "SCMP_CMP_LE"
	Equal        Op = "SCMP_CMP_EQ"
	GreaterEqual Op = "SCMP_CMP_GE"
	Greater      Op = "SCMP_CMP_GT"
	MaskedEqual  Op = "SCMP_CMP_MASKED_EQ"
)

// Profile is a seccomp profile in OCI's form.
type Profile struct {
	DefaultAction Action `json:"defaultAction"`
	// DefaultErrnoRet is the errno of ActErrno; EPERM when nil.
	DefaultErrnoRet *uint    `json:"defaultErrnoRet,omitempty"`
	Architectures   []string `json:"architectures,omitempty"`
	Flags           []string `json:"flags,omitempty"`
	Syscalls        []Rule   `json:"syscalls,omitempty"`
}

// Rule is what happens to some calls. All conditions must hold. A call that
// several rules name is allowed when any of them allows it.
type Rule struct {
	Names  []string `json:"names"`
	Action Action   `json:"action"`
	// ErrnoRet is the errno of ActErrno; EPERM when nil.
	ErrnoRet *uint       `json:"errnoRet,omitempty"`
	Args     []Condition `json:"args,omitempty"`
}

// Condition is a comparison of one argument, all 64 bits of it.
type Condition struct {
	Index    uint   `json:"index"` // 0 to 5
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo,omitempty"`
	Op       Op     `json:"op"`
}

// Allowed lists the calls that some rule allows, sorted, those with
// conditions included.
func (p *Profile) Allowed() []string {
	seen := map[string]bool{}
	for _, r := range p.Syscalls {
		if r.Action != ActAllow {
			continue
		}
		for _, name := range r.Names {
			seen[name] = true
		}
	}
	return sortedKeys(seen)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// archTable maps an OCI architecture to its table of calls.
func archTable(name string) (syscalls.Arch, bool) {
	switch name {
	case ArchX8664:
		return syscalls.AMD64, true
	case ArchX86:
		return syscalls.I386, true
	case ArchAArch64:
		return syscalls.ARM64, true
	}
	return "", false
}

// ociArch is the OCI word for an architecture.
func ociArch(arch syscalls.Arch) (string, bool) {
	switch arch {
	case syscalls.AMD64:
		return ArchX8664, true
	case syscalls.I386:
		return ArchX86, true
	case syscalls.ARM64:
		return ArchAArch64, true
	}
	return "", false
}

// compareConditions orders conditions, for output that is the same each time.
func compareConditions(a, b Condition) int {
	switch {
	case a.Index != b.Index:
		return int(a.Index) - int(b.Index)
	case a.Op != b.Op:
		return strings.Compare(string(a.Op), string(b.Op))
	case a.Value != b.Value:
		return compareUint(a.Value, b.Value)
	}
	return compareUint(a.ValueTwo, b.ValueTwo)
}

func compareUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func pointer(v uint) *uint { return &v }

// errnoOf is the errno that a rule or a default gives.
func errnoOf(v *uint) uint {
	if v == nil {
		return EPERM
	}
	return *v
}
