package cli

import (
	"fmt"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/seccomp"
	"github.com/confinehq/confine/pkg/syscalls"
)

// analysisProfile is a profile of the programs alone. What the container
// runtime itself needs to start them is not in it.
func analysisProfile(r *analysis.Result) ([]byte, error) {
	arch, ok := syscalls.ForPlatform(r.Platform)
	if !ok {
		return nil, fmt.Errorf("write profile: platform %q has no table of system calls", r.Platform)
	}
	spec := seccomp.Spec{Arch: arch, Compat: r.Compat}
	var names []string
	for _, s := range r.Syscalls {
		c := seccomp.Call{Name: s.Name}
		for _, a := range s.Args {
			c.Args = append(c.Args, seccomp.Condition{Index: a.Index, Op: seccomp.Op(a.Op), Value: a.Value, ValueTwo: a.ValueTwo})
		}
		spec.Calls = append(spec.Calls, c)
		names = append(names, s.Name)
	}
	for _, k := range seccomp.KernelCalls(names) {
		spec.Calls = append(spec.Calls, seccomp.Call{Name: k.Name})
	}
	p, err := seccomp.Build(spec)
	if err != nil {
		return nil, err
	}
	return p.JSON()
}
