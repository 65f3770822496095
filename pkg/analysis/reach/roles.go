package reach

import "github.com/confinehq/confine/pkg/analysis/objects"

// role is what uses of an import mean beyond that it is reached.
type role uint8

// Roles of imports, by the names that POSIX, the C libraries and libffi give
// them.
const (
	roleNone     role = iota
	roleOpens         // it loads a library by name
	roleOpensIn       // it does, by the name that comes second
	roleOpensNow      // it does, in an old C library's own way
	roleLooksUp       // it finds a function by name
	roleForeign       // it calls any function with any arguments
	roleProtects      // it makes memory that can be executed
)

// Questions are about the arguments of imports that decide what is reached; key:
// the name of an import.
func Questions() map[string][]objects.Question {
	name := []objects.Question{{Arg: 0, Name: true, Passed: true}}
	second := []objects.Question{{Arg: 1, Name: true, Passed: true}}
	looksUp := []objects.Question{{Arg: 0, Passed: true}, {Arg: 1, Name: true}}
	protection := []objects.Question{{Arg: 2}}
	return map[string][]objects.Question{
		"syscall": {{Arg: 0}},
		"dlopen":  name, "__libc_dlopen_mode": name, "dlmopen": second,
		"dlsym": looksUp, "dlvsym": looksUp,
		"mmap": protection, "mmap64": protection, "mprotect": protection, "pkey_mprotect": protection,
	}
}

// roles are those of names.
var roles = map[string]role{
	"dlopen": roleOpens, "dlmopen": roleOpensIn, "__libc_dlopen_mode": roleOpensNow,
	"dlsym": roleLooksUp, "dlvsym": roleLooksUp,
	"ffi_call": roleForeign,
	"mmap":     roleProtects, "mmap64": roleProtects, "mprotect": roleProtects, "pkey_mprotect": roleProtects,
}
