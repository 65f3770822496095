package seccomp

import "slices"

// Kernel says which calls the kernel makes on a program's behalf, so that no
// code of the program has a site for them.
type Kernel struct {
	Name string
	// For is the allowed call that brings it about.
	For string
	// Detail is a sentence for a person.
	Detail string
}

// KernelCalls lists the calls that the kernel makes for a program that makes
// the given ones, and that the given ones don't hold already.
func KernelCalls(calls []string) []Kernel {
	has := func(name string) bool { return slices.Contains(calls, name) }
	var out []Kernel
	// restart_syscall(2): the users of set_restart_fn in the kernel.
	for _, name := range []string{"nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "poll", "futex", "futex_time64"} {
		if has(name) && !has("restart_syscall") {
			out = append(out, Kernel{"restart_syscall", name,
				"the kernel restarts an interrupted " + name + " by it (restart_syscall(2))"})
			break
		}
	}
	for _, name := range []string{"rt_sigaction", "sigaction"} {
		if has(name) && !has("rt_sigreturn") {
			out = append(out, Kernel{"rt_sigreturn", name, "every signal handler returns by it (sigreturn(2))"})
			break
		}
	}
	return out
}
