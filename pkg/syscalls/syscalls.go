// Package syscalls holds the system call tables of the architectures that
// Confine knows.
//
// The tables are generated from golang.org/x/sys/unix, which is itself
// generated from the kernel's own headers; KernelVersion says which. They hold
// every call that the kernel headers name, including ones that a given kernel
// was built without.
package syscalls

import (
	"slices"
	"sync"
)

//go:generate go run ./internal/gen

// Arch is an architecture under its Go name.
type Arch string

// Architectures with a table. I386 is also the compat table of an AMD64
// kernel.
const (
	AMD64 Arch = "amd64"
	I386  Arch = "386"
	ARM64 Arch = "arm64"
)

// Call is one row of a table.
type Call struct {
	// Nr is the number that user space puts in the call register.
	Nr int
	// Name is the kernel's name, which is also libseccomp's.
	Name string
}

// ForPlatform returns the architecture of an OCI platform ("linux/amd64",
// "linux/arm64/v8").
func ForPlatform(platform string) (Arch, bool) {
	switch platform {
	case "linux/amd64":
		return AMD64, true
	case "linux/386":
		return I386, true
	case "linux/arm64", "linux/arm64/v8":
		return ARM64, true
	}
	return "", false
}

// Platform returns the OCI platform of an architecture.
func (a Arch) Platform() string { return "linux/" + string(a) }

// Name returns the name of a number, and false when the table has none.
func Name(arch Arch, nr int) (string, bool) {
	calls := table(arch)
	i, ok := slices.BinarySearchFunc(calls, nr, func(c Call, nr int) int { return c.Nr - nr })
	if !ok {
		return "", false
	}
	return calls[i].Name, true
}

// Number returns the number of a name, and false when the table has none.
func Number(arch Arch, name string) (int, bool) {
	nr, ok := numbers(arch)[name]
	return nr, ok
}

// Count returns how many calls the table has; 0 for an unknown architecture.
func Count(arch Arch) int { return len(table(arch)) }

// All returns the table sorted by number. The caller owns the slice.
func All(arch Arch) []Call { return slices.Clone(table(arch)) }

func table(arch Arch) []Call {
	switch arch {
	case AMD64:
		return amd64Calls[:]
	case I386:
		return i386Calls[:]
	case ARM64:
		return arm64Calls[:]
	}
	return nil
}

// The indexes are built once, at their first use; keys are names.
var (
	amd64Numbers = sync.OnceValue(func() map[string]int { return index(amd64Calls[:]) })
	i386Numbers  = sync.OnceValue(func() map[string]int { return index(i386Calls[:]) })
	arm64Numbers = sync.OnceValue(func() map[string]int { return index(arm64Calls[:]) })
)

func numbers(arch Arch) map[string]int {
	switch arch {
	case AMD64:
		return amd64Numbers()
	case I386:
		return i386Numbers()
	case ARM64:
		return arm64Numbers()
	}
	return nil
}

func index(calls []Call) map[string]int {
	m := make(map[string]int, len(calls))
	for _, c := range calls {
		m[c.Name] = c.Nr
	}
	return m
}
