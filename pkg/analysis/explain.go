package analysis

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/syscalls"
)

// Bounds of an explanation.
const (
	// maxPlaces bounds the places that are kept of one call, the nearest to an
	// entry point first. The others are counted.
	maxPlaces = 200
	// maxAbsent bounds the places that are kept of a call that nothing makes.
	maxAbsent = 4
	// maxUsers bounds the names of those that refer to such a place.
	maxUsers = 3
)

// Explanation says how every call is reached, for those who want to know more
// than the shortest chain.
type Explanation struct {
	// Steps are a forest: chains share their beginnings.
	Steps []Step
	// Places decide the numbers of calls; by name of the call, and of one call
	// the nearest to an entry point first.
	Places []Place
	// Left counts the places that aren't in Places; key: name of the call.
	Left map[string]int
	// Absent are places of calls that nothing reaches, by name of the call.
	Absent []AbsentPlace
}

// Step is a frame, and how the chain came to it.
type Step struct {
	Frame
	// Parent is the index of the step before, -1 when there is none.
	Parent int
}

// Place is one place that decides the number of a call: an instruction that
// enters the kernel, or a call that passes the number to a function that does.
type Place struct {
	Call string // "" for a place whose number can be any
	// Step is the index of the last step of its chain.
	Step int
	// Object and Address say where the place is.
	Object  string
	Address uint64
	Site    Site
	// Compat is set for the 32-bit gate.
	Compat bool
	// Detail says why the number isn't known, "" when it is.
	Detail string
}

// AbsentPlace is a place of a call that no chain leads to.
type AbsentPlace struct {
	Call   string
	Object string
	// Symbol and Function are the name and the address of the function that
	// has it; Address is its own.
	Symbol            string
	Function, Address uint64
	// Exports are the names by which other objects could reach the function.
	Exports []string
	// Users are functions and data of the object that refer to it, none of
	// which is reached.
	Users []string
	// More counts the places of the call that were left out here.
	More int
}

// Chain is the chain that ends with a step.
func (e *Explanation) Chain(step int) []Frame {
	var out []Frame
	for range e.Steps { // no chain is longer
		if step < 0 || step >= len(e.Steps) {
			break
		}
		out = append(out, e.Steps[step].Frame)
		step = e.Steps[step].Parent
	}
	slices.Reverse(out)
	return out
}

// way is how one program comes to execute another.
type way struct {
	from   string  // path of the program
	frames []Frame // behind the start of that program
}

// to is the way on to a program.
func (w way) to(path, edge string) way {
	w.frames = append(slices.Clone(w.frames), Frame{Kind: "program", Object: path, Edge: edge})
	return w
}

// executes notes a way to a program; the shortest from each program is kept.
func (a *analysis) executes(to string, w way) {
	if w.from == to {
		return
	}
	if a.ways[to] == nil {
		a.ways[to] = map[string][]Frame{}
	}
	if old, ok := a.ways[to][w.from]; !ok || len(w.frames) < len(old) {
		a.ways[to][w.from] = w.frames
	}
}

// prefixes returns the shortest chain to the start of every program, that start
// included.
func (a *analysis) prefixes() map[string][]Frame {
	out := map[string][]Frame{}
	for _, p := range a.roots {
		out[p] = []Frame{{Kind: "program", Object: p, Edge: "program"}}
	}
	next := map[string][]string{} // program to those that it executes
	for _, to := range slices.Sorted(maps.Keys(a.ways)) {
		for from := range a.ways[to] {
			next[from] = append(next[from], to)
		}
	}
	work := slices.Sorted(maps.Keys(out))
	for len(work) > 0 {
		from := work[0]
		work = work[1:]
		for _, to := range next[from] {
			chain := append(slices.Clone(out[from]), a.ways[to][from]...)
			if old, ok := out[to]; !ok || len(chain) < len(old) {
				out[to] = chain
				work = append(work, to)
			}
		}
	}
	return out
}

// place is a place with the program whose chain to it is kept.
type place struct {
	Place
	steps int
}

type placeKey struct {
	nr      int32
	compat  bool
	object  string
	address uint64
}

type stepKey struct {
	parent  int
	object  string
	kind    string
	symbol  string
	address uint64
	edge    string
}

// explainer gathers an Explanation.
type explainer struct {
	steps  []Step
	index  map[stepKey]int
	starts map[string]int // program to its first step
	places map[placeKey]*place
}

func newExplainer() *explainer {
	return &explainer{index: map[stepKey]int{}, starts: map[string]int{}, places: map[placeKey]*place{}}
}

// program takes in what decides numbers in one program.
func (x *explainer) program(path string, r *reach.Result, arch syscalls.Arch) {
	start := x.step(-1, Frame{Kind: "program", Object: path, Edge: "program"})
	x.starts[path] = start
	for _, p := range r.Trail.Places() {
		p.Compat = p.Compat || arch == syscalls.I386
		k := placeKey{p.Nr, p.Compat, p.Object, p.Address}
		if old := x.places[k]; old != nil && old.steps <= p.Steps {
			continue
		}
		chain, site := r.Trail.Chain(p)
		at := start
		for _, f := range frames(chain) {
			at = x.step(at, f)
		}
		x.places[k] = &place{Place{Step: at, Object: p.Object, Address: p.Address, Site: Site(site), Compat: p.Compat, Detail: p.Why}, p.Steps}
	}
}

// step returns the index of a frame behind a step.
func (x *explainer) step(parent int, f Frame) int {
	k := stepKey{parent, f.Object, f.Kind, f.Symbol, f.Address, f.Edge}
	i, ok := x.index[k]
	if !ok {
		i = len(x.steps)
		x.index[k] = i
		x.steps = append(x.steps, Step{f, parent})
	}
	return i
}

// explanation puts everything together when all programs are known.
func (a *analysis) explanation(prefix map[string][]Frame) *Explanation {
	x := a.explain
	for _, path := range slices.Sorted(maps.Keys(x.starts)) {
		chain := prefix[path]
		at := -1
		for _, f := range chain[:max(0, len(chain)-1)] {
			at = x.step(at, f)
		}
		start := &x.steps[x.starts[path]]
		start.Parent = at
		if len(chain) > 0 {
			start.Frame = chain[len(chain)-1]
		}
	}
	e := &Explanation{Steps: x.steps, Left: map[string]int{}}
	length := map[int]int{} // of the chain to a step
	for k, p := range x.places {
		if p.Call = a.name(k); p.Call == "" && k.nr >= 0 {
			continue // a number that no table knows
		}
		length[p.Step] = len(e.Chain(p.Step))
		e.Places = append(e.Places, p.Place)
	}
	slices.SortFunc(e.Places, func(p, q Place) int {
		return cmp.Or(cmp.Compare(p.Call, q.Call), cmp.Compare(length[p.Step], length[q.Step]), cmp.Compare(p.Object, q.Object), cmp.Compare(p.Address, q.Address), cmp.Compare(p.Step, q.Step))
	})
	e.bound()
	e.Absent = a.absent()
	e.compact()
	return e
}

// name is the call of a place; calls through the 32-bit gate count by name.
func (a *analysis) name(k placeKey) string {
	arch := a.arch
	if k.compat {
		arch = syscalls.I386
	}
	name, _ := syscalls.Name(arch, int(k.nr))
	return name
}

// bound leaves of each call the first places.
func (e *Explanation) bound() {
	kept := e.Places[:0]
	count := map[string]int{}
	for _, p := range e.Places {
		if count[p.Call]++; count[p.Call] <= maxPlaces {
			kept = append(kept, p)
		} else {
			e.Left[p.Call]++
		}
	}
	e.Places = kept
}

// compact drops the steps that no place needs, and numbers the others by the
// order of places, parents first.
func (e *Explanation) compact() {
	index := make([]int, len(e.Steps))
	for i := range index {
		index[i] = -1
	}
	var steps []Step
	for i := range e.Places {
		var path []int
		for s := e.Places[i].Step; s >= 0 && index[s] < 0 && len(path) <= len(e.Steps); s = e.Steps[s].Parent {
			path = append(path, s)
		}
		slices.Reverse(path)
		for _, s := range path {
			step := e.Steps[s]
			if step.Parent >= 0 {
				step.Parent = index[step.Parent]
			}
			index[s] = len(steps)
			steps = append(steps, step)
		}
		e.Places[i].Step = index[e.Places[i].Step]
	}
	e.Steps = steps
}

// showFacts hands the facts of all objects to the caller, if it wants them.
func (a *analysis) showFacts() error {
	show := a.req.Options.Facts
	if show == nil {
		return nil
	}
	for _, o := range a.result.Objects {
		loaded, err := a.set.Load(a.ctx, o.Path)
		if err != nil {
			return err
		}
		f, err := loaded.Facts(a.ctx)
		if err != nil {
			continue // the result says that it can't be read
		}
		if err := show(o.Path, f); err != nil {
			return err
		}
	}
	return nil
}

// absent finds places of calls that nothing makes.
func (a *analysis) absent() []AbsentPlace {
	var out []AbsentPlace
	for _, path := range slices.Sorted(maps.Keys(a.found)) {
		o, err := a.set.Load(a.ctx, path)
		if err != nil {
			continue
		}
		f, err := o.Facts(a.ctx)
		if err != nil {
			continue
		}
		out = append(out, a.absentIn(o, f)...)
	}
	slices.SortStableFunc(out, func(p, q AbsentPlace) int { return cmp.Compare(p.Call, q.Call) })
	var kept []AbsentPlace
	for _, p := range out {
		if n := len(kept); n >= maxAbsent && kept[n-maxAbsent].Call == p.Call {
			kept[n-1].More++
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

func (a *analysis) absentIn(o *objects.Object, f *facts.Facts) []AbsentPlace {
	var out []AbsentPlace
	if arch, ok := o.Header.Arch(); !ok || arch != a.arch {
		return nil
	}
	holders := map[uint32][]string{} // functions that have such a place, to those that refer to them
	var funcs []uint32
	for i := range f.Funcs {
		for _, s := range f.Funcs[i].Sites {
			if s.Kind != facts.SiteSyscall {
				continue
			}
			for _, nr := range s.Nrs {
				name, ok := syscalls.Name(a.arch, int(nr))
				if !ok || a.calls[nr] != nil {
					continue
				}
				holders[uint32(i)] = nil
				funcs = append(funcs, uint32(i))
				out = append(out, AbsentPlace{Call: name, Object: o.Path, Symbol: f.Symbols[uint32(i)], Function: f.Funcs[i].Start, Address: s.Addr})
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	users(f, holders)
	for i, fn := range funcs {
		out[i].Users = holders[fn]
		for _, e := range f.Exports {
			if e.Func == fn+1 && !slices.Contains(out[i].Exports, e.Name) && len(out[i].Exports) < maxUsers {
				out[i].Exports = append(out[i].Exports, e.Name)
			}
		}
	}
	return out
}

// users names what refers to each of some functions.
func users(f *facts.Facts, of map[uint32][]string) {
	note := func(to uint32, name string) {
		if list, ok := of[to]; ok && len(list) < maxUsers && !slices.Contains(list, name) {
			of[to] = append(list, name)
		}
	}
	for i := range f.Funcs {
		for _, e := range f.Funcs[i].Edges {
			if e.To == uint32(i) {
				continue
			}
			name := f.Symbols[uint32(i)]
			if name == "" {
				name = fmt.Sprintf("function +%#x", f.Funcs[i].Start)
			}
			note(e.To, name)
		}
	}
	for i := range f.Regions {
		r := &f.Regions[i]
		for _, fn := range r.Funcs {
			note(fn, fmt.Sprintf("%s+%#x", r.Name, r.Start))
		}
	}
}
