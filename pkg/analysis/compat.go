package analysis

import (
	"debug/elf"
	"fmt"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/link"
	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/syscalls"
)

// compats gathers what programs for i386, and the 32-bit gate of others, add to
// a result. Profiles allow calls by name for all architectures that they state,
// so names count, and those that x86-64 has, too, are among its calls.
type compats struct {
	// only holds the calls that x86-64 doesn't have, by name.
	only map[string]*call
	// any is why all calls can be made, nil when they can't.
	any *programReason
}

// mergeCalls takes in the calls of one program.
func (a *analysis) mergeCalls(o *objects.Object, r *reach.Result, arch syscalls.Arch) {
	gated := r.Compat
	if arch == syscalls.I386 {
		gated = r.Calls
	} else {
		for nr, c := range r.Calls {
			a.add(nr, programReason{Reason{Kind: "site", Chain: frames(c.Chain), Detail: places(c.Sites), Site: Site(c.Site)}, o.Path})
			a.calls[nr].narrow(c.Args)
		}
	}
	for nr, c := range gated {
		a.compat = true
		detail := "made through the 32-bit gate by " + o.Path
		if arch == syscalls.I386 {
			detail = places(c.Sites) + " in 32-bit code"
		}
		why := programReason{Reason{Kind: "site", Chain: frames(c.Chain), Detail: detail, Site: Site(c.Site)}, o.Path}
		if name, ok := syscalls.Name(syscalls.I386, int(nr)); ok {
			a.addCompat(name, why)
		} else if nr >= 0 {
			a.note("unknown-number", o.Path, fmt.Sprintf("there is code for the 32-bit system call %d, which this version doesn't know and the profile doesn't allow", nr))
		}
	}
	if (r.AnyCompat || r.Widened && arch == syscalls.I386) && a.compats.any == nil && a.req.Options.OnUnresolved != UnresolvedObserve {
		a.compat = true
		a.compats.any = anyNumber(o, r)
	}
}

func (a *analysis) addCompat(name string, why programReason) {
	if nr, ok := syscalls.Number(syscalls.AMD64, name); ok {
		a.add(int32(nr), why)
		return
	}
	c := a.compats.only[name]
	if c == nil {
		if a.compats.only == nil {
			a.compats.only = map[string]*call{}
		}
		c = &call{}
		a.compats.only[name] = c
	}
	c.reasons = append(c.reasons, why)
}

// unfollowed allows every 32-bit call for a program whose code could not be
// followed, and says so.
func (a *analysis) unfollowed(path, why string) {
	a.incomplete("foreign-arch", path, "its 32-bit code can't be followed, so that every 32-bit call is allowed: "+why)
	if a.compats.any == nil {
		a.compats.any = &programReason{Reason{Kind: "fallback", Detail: path + " is a 32-bit program whose code can't be followed"}, path}
	}
}

// checkCompat looks for 32-bit code that a program has and that wasn't read: it
// may make any call.
func (a *analysis) checkCompat(o *objects.Object, l *link.Linker, r *reach.Result) {
	for _, i := range r.Issues {
		if i.Kind == "unreadable-object" {
			a.unfollowed(o.Path, i.Object+": "+i.Detail)
		}
	}
	for _, m := range l.Members() {
		if m.Object.Header.Machine != elf.EM_386 {
			a.unfollowed(o.Path, "it loads "+m.Object.Path+", which is for another machine")
		}
	}
}

// widenCompat adds all calls where some program can make any.
func (a *analysis) widenCompat() {
	if a.compats.any == nil {
		return
	}
	for _, row := range syscalls.All(syscalls.I386) {
		nr, both := syscalls.Number(syscalls.AMD64, row.Name)
		if both && a.calls[int32(nr)] == nil || !both && a.compats.only[row.Name] == nil {
			a.addCompat(row.Name, *a.compats.any)
		}
	}
}

// onlyCompat lists the calls that x86-64 doesn't have.
func (a *analysis) onlyCompat(prefix map[string][]Frame) []Syscall {
	var out []Syscall
	for name, c := range a.compats.only {
		out = append(out, Syscall{Name: name, Nr: -1, Reasons: shortest(c.reasons, prefix)})
	}
	return out
}

// handlersReturn lists the calls by which handlers of signals return in 32-bit
// code: without a restorer, through code of the kernel's (arch/x86/kernel/signal_32.c,
// ia32_setup_frame and ia32_setup_rt_frame).
func handlersReturn(has func(string) bool) []Syscall {
	if !slices.ContainsFunc([]string{"rt_sigaction", "sigaction", "signal"}, has) {
		return nil
	}
	var out []Syscall
	for _, name := range []string{"sigreturn", "rt_sigreturn"} {
		if has(name) {
			continue
		}
		nr, ok := syscalls.Number(syscalls.AMD64, name)
		if !ok {
			nr = -1
		}
		out = append(out, Syscall{Name: name, Nr: nr, Reasons: []Reason{{
			Kind: "kernel", Detail: "signal handlers of 32-bit code return with it, through code of the kernel's (vDSO)",
		}}})
	}
	return out
}
