package analysis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/link"
	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/analysis/providers"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/rootfs"
	"github.com/confinehq/confine/pkg/syscalls"
)

// maxPrograms bounds the programs of one analysis, those that were found by
// following included.
const maxPrograms = 2048

// analysis is one Analyze under way.
type analysis struct {
	ctx  context.Context
	req  Request
	root rootfs.Root
	set  *objects.Set
	sys  *link.System

	work  []Program
	seen  map[string]bool // key: canonical path of a program
	found map[string]Origin
	// configs says which configuration brought an object in; key: its path.
	configs   map[string]string
	providers *providers.Root
	roots     []string                      // programs that were named
	ways      map[string]map[string][]Frame // program to those that execute it, and how

	explain *explainer // nil unless Options.Explain
	stop    error      // of a function of the caller's, which ends the analysis

	arch    syscalls.Arch
	calls   map[int32]*call
	widened *programReason
	compat  bool
	compats compats

	result Result
	issues map[Issue]bool
}

// call is one system call with the reasons found so far.
type call struct {
	reasons []programReason
	// args holds the values that arguments can have, nil until the first site;
	// keys: position, lower 32 bits of a value.
	args map[int]map[uint32]bool
}

// programReason is a reason whose chain begins at the start of a program.
type programReason struct {
	Reason
	program string // "" for a reason that no program has
}

func analyze(ctx context.Context, req Request) (*Result, error) {
	if len(req.Programs) == 0 {
		return nil, errors.New("analyse: no program is named")
	}
	parallel := req.Options.Parallel
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0)
	}
	a := &analysis{
		ctx: ctx, req: req, root: req.Root, sys: link.NewSystem(req.Root),
		seen: map[string]bool{}, found: map[string]Origin{}, configs: map[string]string{}, calls: map[int32]*call{}, issues: map[Issue]bool{},
		ways: map[string]map[string][]Frame{},
	}
	if req.Options.Explain {
		a.explain = newExplainer()
	}
	a.providers = providers.New(req.Root, a.sys)
	o := objects.Options{Memory: req.Options.Memory, Parallel: parallel, Questions: reach.Questions(), Progress: req.Options.Progress}
	maps.Copy(o.Questions, providers.Questions())
	if req.Options.Cache != nil {
		o.Cache = req.Options.Cache
	}
	a.set = objects.NewSet(req.Root, o)
	defer a.set.Wait()
	a.work = slices.Clone(req.Programs)
	var first error
	for len(a.work) > 0 {
		p := a.work[0]
		a.work = a.work[1:]
		if err := a.program(p); err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("analyse %s: %w", p.Path, ctx.Err())
			}
			if a.stop != nil {
				return nil, a.stop
			}
			if first == nil {
				first = err
			}
			if p.Origin != OriginStatic {
				a.incomplete("unreadable-object", p.Path, err.Error())
			}
		}
	}
	if len(a.result.Entrypoints) == 0 {
		return nil, first
	}
	a.finish()
	if err := a.showFacts(); err != nil {
		return nil, err
	}
	if places := a.anyCalls(); len(places) > 0 && req.Options.OnUnresolved == UnresolvedFail {
		return nil, &UnresolvedError{places}
	}
	return &a.result, nil
}

// anyCalls lists the places that can make any call.
func (a *analysis) anyCalls() []Issue {
	var out []Issue
	for _, i := range a.result.Incomplete {
		if i.anyCall() {
			out = append(out, i)
		}
	}
	return out
}

// assume says what an answer rests on that leaves calls to a run.
func (a *analysis) assume() {
	slices.Sort(a.result.Unresolved)
	if a.req.Options.OnUnresolved != UnresolvedObserve {
		return
	}
	detail := "it can make any call; of those that the analysis can't know, none is in the answer (--on-unresolved observe)"
	if a.req.Options.Observed {
		detail = "it can make any call; of those that the analysis can't know, only what it made during the run is allowed (--on-unresolved observe)"
	}
	for _, p := range a.result.Unresolved {
		a.incomplete("assumed", p, detail)
	}
}

func (a *analysis) incomplete(kind, object, detail string) {
	a.issues[Issue{kind, object, detail}] = true
}

// program analyses one program: an ELF file, or the interpreter of a script.
func (a *analysis) program(p Program) error {
	p.Origin = cmp.Or(p.Origin, OriginExecuted)
	e, err := a.root.Lookup(a.ctx, p.Path)
	if err != nil {
		return fmt.Errorf("find %s: %w", p.Path, err)
	}
	if e.Kind != rootfs.KindFile {
		return fmt.Errorf("read %s: %w", p.Path, rootfs.ErrNotRegular)
	}
	if !p.follows {
		a.roots = append(a.roots, e.Path)
	}
	if a.seen[e.Path] {
		return nil
	}
	if len(a.seen) >= maxPrograms {
		a.incomplete("too-many-programs", p.Path, fmt.Sprintf("more than %d programs are reachable; the rest was left out", maxPrograms))
		return nil
	}
	a.seen[e.Path] = true
	o, err := a.set.Load(a.ctx, e.Path)
	if errors.Is(err, object.ErrNotELF) {
		return a.script(p, e)
	}
	if err != nil {
		return err
	}
	return a.elf(p, o)
}

func (a *analysis) elf(p Program, o *objects.Object) error {
	arch, ok := o.Header.Arch()
	if !ok {
		return fmt.Errorf("analyse %s: programs for %v aren't analysed, only those for x86-64, i386 and arm64", o.Path, o.Header.Machine)
	}
	if err := a.joins(o, arch); err != nil {
		return err
	}
	r, l, err := a.reach(p, o, arch)
	if err != nil && (arch != syscalls.I386 || a.ctx.Err() != nil) {
		return err
	}
	a.result.Entrypoints = append(a.result.Entrypoints, o.Path)
	if err != nil {
		a.found[o.Path] = p.Origin
		a.unfollowed(o.Path, err.Error())
		return nil
	}
	a.merge(p, o, r)
	if arch == syscalls.I386 {
		a.checkCompat(o, l, r)
	}
	if show := a.req.Options.Graph; show != nil {
		if a.stop = show(o.Path, r.Trail); a.stop != nil {
			return a.stop
		}
	}
	if !a.req.Options.NoFollow {
		a.follow(p, o, r)
	}
	return nil
}

// joins takes in the architecture of a program. Those for i386 stand beside
// those for x86-64, whose kernels run them; others have profiles of their own.
func (a *analysis) joins(o *objects.Object, arch syscalls.Arch) error {
	others := a.arch
	if others == "" && a.compat {
		others = syscalls.AMD64
	}
	wants := arch
	if arch == syscalls.I386 {
		wants = syscalls.AMD64
	}
	if others != "" && others != wants {
		return fmt.Errorf("analyse %s: it is a program for %s among others for %s: give each a profile of its own", o.Path, arch, others)
	}
	if arch == syscalls.I386 {
		a.compat = true
	} else {
		a.arch = arch
	}
	return nil
}

// reach finds what one program can do.
func (a *analysis) reach(p Program, o *objects.Object, arch syscalls.Arch) (*reach.Result, *link.Linker, error) {
	l := link.New(a.set, a.root, a.sys, o, p.Env)
	if err := l.Startup(a.ctx); err != nil {
		return nil, nil, err
	}
	r, err := reach.Run(a.ctx, l, reach.Options{Load: p.Load, Services: a.providers.Services(p.Env), Watch: providers.Watch(), NoConfigured: a.req.Options.NoFollow, Surplus: a.req.Options.Surplus, Arch: arch})
	return r, l, err
}

// merge takes in what one program can do.
func (a *analysis) merge(p Program, o *objects.Object, r *reach.Result) {
	mapped := map[string]bool{}
	for _, l := range p.Load {
		if e, err := a.root.Lookup(a.ctx, l); err == nil {
			mapped[e.Path] = true
		}
	}
	for _, m := range r.Members {
		origin := OriginStatic
		config, configured := r.Configured[m]
		switch {
		case m.Object == o:
			origin = p.Origin
		case mapped[m.Object.Path]:
			origin = OriginMapped
		case configured:
			origin = OriginConfigured
			a.configs[m.Object.Path] = config
		}
		if old, ok := a.found[m.Object.Path]; !ok || rank(origin) < rank(old) {
			a.found[m.Object.Path] = origin
		}
	}
	arch, _ := o.Header.Arch()
	a.mergeCalls(o, r, arch)
	if r.Widened && !slices.Contains(a.result.Unresolved, o.Path) {
		a.result.Unresolved = append(a.result.Unresolved, o.Path)
	}
	if r.Widened && a.widened == nil && a.req.Options.OnUnresolved != UnresolvedObserve && arch != syscalls.I386 {
		a.widened = anyNumber(o, r)
	}
	if a.explain != nil {
		a.explain.program(o.Path, r, arch)
	}
	for _, k := range r.Surplus {
		rank := Surplus{Program: o.Path, Frame: frame(k.Frame), Chain: frames(k.From)}
		for _, nr := range k.Calls {
			if name, ok := syscalls.Name(arch, int(nr)); ok {
				rank.Calls = append(rank.Calls, name)
			}
		}
		a.result.Surplus = append(a.result.Surplus, rank)
	}
	a.pointers(o.Path, r.Pointers)
	for _, i := range r.Issues {
		if p.Unwatched && i.Kind == "computed-dlopen" {
			i.Watched = false
		}
		a.issue(i)
	}
}

// pointers groups the calls of a program by the pointers that they need.
func (a *analysis) pointers(program string, calls map[int32]int) {
	groups := map[int][]string{}
	for nr, n := range calls {
		if name, ok := syscalls.Name(a.arch, int(nr)); ok {
			groups[n] = append(groups[n], name)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(groups)) {
		slices.Sort(groups[n])
		a.result.Pointers = append(a.result.Pointers, Pointers{program, n, groups[n]})
	}
}

func (a *analysis) issue(i reach.Issue) {
	if i.Note || i.Watched && (a.req.Options.Observed || a.req.Options.NoFollow && i.Kind == "computed-exec") {
		a.note(i.Kind, i.Object, i.Detail)
		return
	}
	a.incomplete(i.Kind, i.Object, i.Detail)
}

func (a *analysis) note(kind, object, detail string) {
	n := Issue{kind, object, detail}
	if !slices.Contains(a.result.Notes, n) {
		a.result.Notes = append(a.result.Notes, n)
	}
}

// conditions are those of a call, none when any call may be made: 32-bit code
// has arguments of its own.
func (a *analysis) conditions(c *call) []ArgCondition {
	if a.compat || len(a.result.Unresolved) > 0 || a.req.Options.NoArgs {
		return nil
	}
	return c.conditions()
}

func (a *analysis) add(nr int32, r programReason) {
	c := a.calls[nr]
	if c == nil {
		c = &call{}
		a.calls[nr] = c
	}
	c.reasons = append(c.reasons, r)
}

func rank(o Origin) int {
	return slices.Index([]Origin{OriginExecuted, OriginMapped, OriginConfigured, OriginStatic}, o)
}

func frame(f reach.Frame) Frame {
	return Frame{Kind: string(f.Kind), Object: f.Object, Symbol: f.Symbol, Address: f.Address, Size: f.Size, Edge: f.Edge}
}

func frames(list []reach.Frame) []Frame {
	out := make([]Frame, len(list))
	for i, f := range list {
		out[i] = frame(f)
	}
	return out
}

func places(n int) string {
	if n == 1 {
		return "1 place"
	}
	return fmt.Sprintf("%d places", n)
}

// anyNumber is the reason for every call, when a program has a place whose
// number isn't known.
func anyNumber(o *objects.Object, r *reach.Result) *programReason {
	out := &programReason{Reason{Kind: "fallback", Detail: "a system call in " + o.Path + " can have any number"}, o.Path}
	for _, p := range r.Trail.Places() {
		if p.Nr < 0 {
			chain, site := r.Trail.Chain(p)
			out.Chain, out.Site = frames(chain), Site(site)
			break
		}
	}
	return out
}

// restartable are the calls that the kernel itself continues through
// restart_syscall when a stop signal has interrupted them (those whose code
// returns -ERESTART_RESTARTBLOCK: kernel/time/hrtimer.c,
// kernel/time/posix-timers.c, kernel/time/alarmtimer.c, kernel/futex/waitwake.c,
// fs/select.c).
var restartable = []string{"nanosleep", "clock_nanosleep", "futex", "poll", "futex_waitv", "futex_wait", "clock_nanosleep_time64", "futex_time64"}

// maxReasons bounds the reasons kept for a call: one for each of the first
// programs that make it.
const maxReasons = 8

func (a *analysis) finish() {
	a.assume()
	r := &a.result
	a.arch = cmp.Or(a.arch, syscalls.AMD64) // those for i386 alone are for its kernels
	r.Platform, r.Compat = a.arch.Platform(), a.compat
	a.widenCompat()
	if a.widened != nil {
		for _, c := range syscalls.All(a.arch) {
			if a.calls[int32(c.Nr)] == nil {
				a.add(int32(c.Nr), *a.widened)
			}
		}
	}
	prefix := a.prefixes()
	for nr, c := range a.calls {
		name, ok := syscalls.Name(a.arch, int(nr))
		if !ok {
			if nr >= 0 {
				a.note("unknown-number", firstObject(c), fmt.Sprintf("there is code for system call %d, which this version doesn't know and the profile doesn't allow", nr))
			}
			continue
		}
		r.Syscalls = append(r.Syscalls, Syscall{Name: name, Nr: int(nr), Args: a.conditions(c), Reasons: shortest(c.reasons, prefix)})
	}
	r.Syscalls = append(r.Syscalls, a.onlyCompat(prefix)...)
	if a.explain != nil {
		r.Explanation = a.explanation(prefix)
	}
	for i := range r.Surplus {
		r.Surplus[i].Chain = append(slices.Clone(prefix[r.Surplus[i].Program]), r.Surplus[i].Chain...)
	}
	a.kernelCalls()
	slices.SortFunc(r.Syscalls, func(x, y Syscall) int { return cmp.Compare(x.Name, y.Name) })
	a.objects()
	slices.Sort(r.Entrypoints)
	r.Entrypoints = slices.Compact(r.Entrypoints)
	for i := range a.issues {
		r.Incomplete = append(r.Incomplete, i)
	}
	sortIssues(r.Incomplete)
	sortIssues(r.Notes)
}

// shortest returns the first few reasons by length, each with the way to its
// program in front.
func shortest(list []programReason, prefix map[string][]Frame) []Reason {
	length := func(r programReason) int { return len(prefix[r.program]) + len(r.Chain) }
	slices.SortStableFunc(list, func(x, y programReason) int {
		return cmp.Or(cmp.Compare(length(x), length(y)), cmp.Compare(x.program, y.program))
	})
	var out []Reason
	for _, r := range list[:min(len(list), maxReasons)] {
		r.Chain = append(slices.Clone(prefix[r.program]), r.Chain...)
		out = append(out, r.Reason)
	}
	return out
}

func (a *analysis) kernelCalls() {
	r := &a.result
	has := func(name string) bool {
		return slices.ContainsFunc(r.Syscalls, func(s Syscall) bool { return s.Name == name })
	}
	if nr, ok := syscalls.Number(a.arch, "rt_sigreturn"); ok && a.arch == syscalls.ARM64 && has("rt_sigaction") && !has("rt_sigreturn") {
		// arch/arm64/kernel/signal.c, setup_return: without a restorer, handlers
		// return to the vDSO.
		r.Syscalls = append(r.Syscalls, Syscall{Name: "rt_sigreturn", Nr: nr, Reasons: []Reason{{
			Kind: "kernel", Detail: "signal handlers return with it, through code of the kernel's (vDSO)",
		}}})
	}
	if a.compat {
		r.Syscalls = append(r.Syscalls, handlersReturn(has)...)
	}
	if has("restart_syscall") {
		return
	}
	for _, name := range restartable {
		if !has(name) {
			continue
		}
		if nr, ok := syscalls.Number(a.arch, "restart_syscall"); ok {
			r.Syscalls = append(r.Syscalls, Syscall{Name: "restart_syscall", Nr: nr, Reasons: []Reason{{
				Kind: "kernel", Detail: "the kernel continues " + name + " with it after a stop signal",
			}}})
		}
		return
	}
}

func firstObject(c *call) string {
	for _, r := range c.reasons {
		if n := len(r.Chain); n > 0 {
			return r.Chain[n-1].Object
		}
	}
	return ""
}

func (a *analysis) objects() {
	for p, origin := range a.found {
		o := a.set.Loaded(p)
		if o == nil {
			continue
		}
		a.result.Objects = append(a.result.Objects, Object{Path: o.Path, SHA256: o.SHA256, Size: o.Size, Origin: origin, Cached: o.Cached, Config: a.configOf(o.Path, origin)})
	}
	slices.SortFunc(a.result.Objects, func(x, y Object) int { return cmp.Compare(x.Path, y.Path) })
}

// configOf is the configuration that brought an object in, when nothing else did.
func (a *analysis) configOf(path string, origin Origin) string {
	if origin != OriginConfigured {
		return ""
	}
	return a.configs[path]
}

// anyCall reports whether an issue is a place that can make any call.
func (i Issue) anyCall() bool { return i.Kind == "unresolved-number" || i.Kind == "computed-call" }

// sortIssues puts first what widens the whole answer.
func sortIssues(list []Issue) {
	slices.SortFunc(list, func(x, y Issue) int {
		if x.anyCall() != y.anyCall() {
			return map[bool]int{true: -1, false: 1}[x.anyCall()]
		}
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Object, y.Object), cmp.Compare(x.Detail, y.Detail))
	})
}

// follow adds the programs that a program names and may execute.
func (a *analysis) follow(p Program, o *objects.Object, r *reach.Result) {
	arch, _ := o.Header.Arch()
	nr1, _ := syscalls.Number(arch, "execve")
	nr2, _ := syscalls.Number(arch, "execveat")
	if r.Calls[int32(nr1)] == nil && r.Calls[int32(nr2)] == nil && !r.Widened {
		return
	}
	a.issue(reach.Issue{Kind: "computed-exec", Object: o.Path, Watched: true,
		Detail: "it can execute programs whose names it computes; only those that it names or that were seen are included"})
	for _, n := range r.Paths {
		a.executable(n.Text, p.Env, way{o.Path, frames(r.Trail.ToText(n.Text))}, "exec")
	}
}

// executable adds a program when there is one at a path. w is the way to what
// names it.
func (a *analysis) executable(name string, env []string, w way, edge string) {
	if name == "/" || strings.HasSuffix(name, "/") || kernelFile(name) {
		return
	}
	e, err := a.root.Lookup(a.ctx, name)
	if err != nil || e.Kind != rootfs.KindFile || e.Mode&0o111 == 0 || isLibrary(e.Path) {
		return
	}
	a.executes(e.Path, w.to(e.Path, edge))
	if a.seen[e.Path] {
		return
	}
	a.work = append(a.work, Program{Path: e.Path, Origin: OriginStatic, Env: env, follows: true})
}

// kernelFile reports whether a path lies in a file system of the kernel's: what
// it means there depends on who asks.
func kernelFile(p string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

// isLibrary reports whether a name is that of a shared object; those are
// often executable files, too.
func isLibrary(p string) bool {
	base := path.Base(p)
	return strings.HasSuffix(base, ".so") || strings.Contains(base, ".so.")
}
