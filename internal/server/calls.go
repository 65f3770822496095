package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/seccomp"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Kinds of reasons that the server adds to those of the analysis.
const (
	reasonFloor    = "floor"
	reasonKernel   = "kernel"
	reasonFallback = "fallback"
	reasonObserved = "observed"
)

// callSet is what a profile allows: calls of the programs, of the runtime's
// start-up and of the kernel, each with its reasons.
type callSet struct {
	arch   syscalls.Arch
	compat bool
	// replayed is true when what was seen comes from a trace.
	replayed bool
	calls    map[string]*confinev1.Syscall // by name
	// assumed are the programs whose calls are those that were seen, too.
	assumed map[string]bool // by path
	// incomplete says what the set could not be sure of.
	incomplete []*confinev1.Incomplete
}

// newCallSet unites what the analysis found with what the runtime needs and
// what was really seen.
func newCallSet(seen *observation, found *analysis.Result) *callSet {
	c := &callSet{arch: seen.arch, compat: found.Compat, replayed: seen.replayed, calls: map[string]*confinev1.Syscall{}, assumed: map[string]bool{}}
	for _, i := range found.Incomplete {
		if i.Kind == "assumed" {
			c.assumed[i.Object] = true
		}
	}
	for _, call := range found.Syscalls {
		c.addFound(call)
	}
	c.addFloor(seen)
	c.addKernel()
	c.addRecorded(seen)
	if c.compat = c.compat || c.foreign(); c.compat {
		// Conditions would hold for calls of both tables.
		for _, call := range c.calls {
			call.Args = nil
		}
	}
	return c
}

// foreign reports whether some call is of the 32-bit table alone.
func (c *callSet) foreign() bool {
	for name := range c.calls {
		if _, ok := syscalls.Number(c.arch, name); !ok {
			return true
		}
	}
	return false
}

func (c *callSet) lack(kind, object, detail string) {
	c.incomplete = append(c.incomplete, &confinev1.Incomplete{Kind: kind, Object: clean(object, maxPath), Detail: clean(detail, maxText)})
}

// get returns the call of a name, which it makes when it is new.
func (c *callSet) get(name string) (call *confinev1.Syscall, added bool) {
	if call := c.calls[name]; call != nil {
		return call, false
	}
	nr, ok := syscalls.Number(c.arch, name)
	if !ok {
		nr = -1 // of the compat table alone
	}
	call = &confinev1.Syscall{Name: name, Nr: int32(nr)}
	c.calls[name] = call
	return call, true
}

// known reports whether a name can be in a profile of this set.
func (c *callSet) known(name string) bool {
	if _, ok := syscalls.Number(c.arch, name); ok {
		return true
	}
	_, ok := syscalls.Number(syscalls.I386, name)
	return ok && c.arch == syscalls.AMD64
}

func (c *callSet) addFound(found analysis.Syscall) {
	if !c.known(found.Name) {
		c.lack("unknown-call", "", fmt.Sprintf("the analysis found the call %q (%d), which has no name that a profile can hold", found.Name, found.Nr))
		return
	}
	call, added := c.get(found.Name)
	if added {
		call.Args = protoConditions(found.Args)
	} else if len(found.Args) == 0 {
		call.Args = nil
	}
	for _, r := range found.Reasons {
		call.Reasons = append(call.Reasons, &confinev1.Reason{Kind: r.Kind, Detail: r.Detail, Chain: protoChain(r.Chain), Site: protoSite(r.Site)})
	}
}

func protoConditions(args []analysis.ArgCondition) []*confinev1.ArgCondition {
	var out []*confinev1.ArgCondition
	for _, a := range args {
		out = append(out, &confinev1.ArgCondition{Index: uint32(a.Index), Op: a.Op, Value: a.Value, ValueTwo: a.ValueTwo})
	}
	return out
}

// addFloor adds what the runtime's own init needs under the filter.
func (c *callSet) addFloor(seen *observation) {
	names := seen.runtime.GetFloor()
	if len(names) == 0 && !slices.ContainsFunc(seen.incomplete, func(i *confinev1.Incomplete) bool { return strings.Contains(i.GetKind(), "floor") }) {
		c.lack("no-floor", "", "the node did not measure what its runtime needs to start a container, so that the container may not start under the profile")
	}
	runtime := clean(seen.runtime.GetName(), 128)
	if runtime == "" {
		runtime = "the container runtime"
	}
	for _, name := range names {
		if !c.known(name) {
			c.lack("unknown-call", "", fmt.Sprintf("%s makes the call %q, which has no name that a profile can hold", runtime, clean(name, 64)))
			continue
		}
		call, _ := c.get(name)
		call.Args = nil // measured without its arguments
		call.Reasons = append(call.Reasons, &confinev1.Reason{Kind: reasonFloor, Detail: runtime + " makes it between loading the filter and starting the program"})
	}
}

// addKernel adds what the kernel makes for the programs.
func (c *callSet) addKernel() {
	names := make([]string, 0, len(c.calls))
	for name := range c.calls {
		names = append(names, name)
	}
	for _, k := range seccomp.KernelCalls(names) {
		call, _ := c.get(k.Name)
		call.Reasons = append(call.Reasons, &confinev1.Reason{Kind: reasonKernel, Detail: k.Detail})
	}
}

// addRecorded marks the calls that were really made. One that the analysis
// lacks is a mistake of ours: it is added, so that the container works, and
// reported, so that it is mended.
func (c *callSet) addRecorded(seen *observation) {
	for _, rec := range seen.run.GetRecorded() {
		if rec.GetPath() == "" {
			continue // the runtime's own init: the floor has it
		}
		for _, name := range rec.GetSyscalls() {
			c.record(c.arch, name, rec.GetPath())
		}
		for _, name := range rec.GetCompat() {
			c.compat = true
			c.record(syscalls.I386, name, rec.GetPath())
		}
	}
}

func (c *callSet) record(arch syscalls.Arch, name, program string) {
	if _, ok := syscalls.Number(arch, name); !ok {
		c.lack("unknown-call", program, fmt.Sprintf("it made the call %q, which has no name that a profile can hold; it will be refused", clean(name, 64)))
		return
	}
	call, added := c.get(name)
	call.Seen = true
	if !added && !onlyFloor(call) {
		return
	}
	if c.assumed[program] {
		call.Reasons = append(call.Reasons, &confinev1.Reason{
			Kind:   reasonObserved,
			Detail: fmt.Sprintf("%s made it during the run, and can make any call", clean(program, maxPath)),
		})
		return
	}
	detail := fmt.Sprintf("%s made it during the run, and the analysis found no site of it", clean(program, maxPath))
	call.Reasons = append(call.Reasons, &confinev1.Reason{Kind: reasonFallback, Detail: detail})
	if c.replayed {
		c.lack("trace-differs", program, fmt.Sprintf("in the trace it made the call %s, which the analysis of this image did not find: another version of the image was traced, or the analysis is mistaken; the call is allowed", name))
		return
	}
	c.lack("static-miss", program, fmt.Sprintf("it made the call %s, which the analysis did not find: a mistake in the analysis, please report it; the call is allowed", name))
}

// onlyFloor is true for a call that no program is known to make.
func onlyFloor(call *confinev1.Syscall) bool {
	return !slices.ContainsFunc(call.GetReasons(), func(r *confinev1.Reason) bool { return r.GetKind() != reasonFloor })
}

// sorted lists the calls by name.
func (c *callSet) sorted() []*confinev1.Syscall {
	out := make([]*confinev1.Syscall, 0, len(c.calls))
	for _, call := range c.calls {
		out = append(out, call)
	}
	slices.SortFunc(out, func(a, b *confinev1.Syscall) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// profile writes the set as OCI's linux.seccomp.
func (c *callSet) profile() (*structpb.Struct, error) {
	spec := seccomp.Spec{Arch: c.arch, Compat: c.compat}
	for _, call := range c.sorted() {
		allowed := seccomp.Call{Name: call.GetName()}
		for _, a := range call.GetArgs() {
			allowed.Args = append(allowed.Args, seccomp.Condition{Index: uint(a.GetIndex()), Op: seccomp.Op(a.GetOp()), Value: a.GetValue(), ValueTwo: a.GetValueTwo()})
		}
		spec.Calls = append(spec.Calls, allowed)
	}
	p, err := seccomp.Build(spec)
	if err != nil {
		return nil, err
	}
	c.keepConditions(p)
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write profile: %w", err)
	}
	out := new(structpb.Struct)
	if err := protojson.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("write profile: %w", err)
	}
	return out, nil
}

// keepConditions drops from the calls what the profile doesn't state: a filter
// holds so many conditions and no more.
func (c *callSet) keepConditions(p *seccomp.Profile) {
	stated := map[string]map[uint]bool{}
	for _, name := range p.Narrowed() {
		stated[name] = map[uint]bool{}
	}
	for _, r := range p.Syscalls {
		for _, name := range r.Names {
			for _, a := range r.Args {
				if stated[name] != nil {
					stated[name][a.Index] = true
				}
			}
		}
	}
	for name, call := range c.calls {
		call.Args = slices.DeleteFunc(call.Args, func(a *confinev1.ArgCondition) bool { return !stated[name][uint(a.GetIndex())] })
	}
}

// narrowed counts the calls that are allowed with certain arguments only.
func (c *callSet) narrowed() uint32 {
	n := uint32(0)
	for _, call := range c.calls {
		if len(call.GetArgs()) > 0 {
			n++
		}
	}
	return n
}
