package reach

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

// roleOf is the role of a name. roleWatched is added where services ask for it.
func roleOf(name string) role {
	switch name {
	case "dlopen":
		return roleOpens
	case "dlmopen":
		return roleOpensIn
	case "__libc_dlopen_mode":
		return roleOpensNow
	case "dlsym", "dlvsym":
		return roleLooksUp
	case "ffi_call":
		return roleForeign
	case "mmap", "mmap64", "mprotect", "pkey_mprotect":
		return roleProtects
	}
	return roleNone
}
