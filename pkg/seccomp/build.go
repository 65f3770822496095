package seccomp

import (
	"fmt"
	"slices"

	"github.com/confinehq/confine/pkg/syscalls"
)

const (
	// maxCombinations bounds the rules that the conditions of one call turn
	// into; beyond it the argument with the most values is left free.
	maxCombinations = 64
	// maxValue is the largest value in a condition: JSON readers that keep
	// numbers as doubles change larger ones.
	maxValue = 1 << 53
)

// Call is one call to allow.
type Call struct {
	Name string
	// Args are conditions. Those on the same argument are alternatives; every
	// argument that is named must meet one of its own. Empty allows any
	// arguments.
	Args []Condition
}

// Spec is what a profile is built from.
type Spec struct {
	Arch syscalls.Arch
	// Compat allows calls of the 32-bit table as well (amd64 only). Runtimes
	// read a rule for all architectures of a profile: a name that both tables
	// have is allowed in both, one that a single table has in that alone.
	Compat bool
	// Calls may name a call more than once: then any of its forms is allowed.
	Calls []Call
}

// Build makes a profile that allows exactly the calls of a Spec. A refused
// call gets EPERM, except that a newer sibling of an allowed call gets ENOSYS
// (see Successors), so that a libc goes on with the older one.
func Build(s Spec) (*Profile, error) {
	arch, ok := ociArch(s.Arch)
	if !ok {
		return nil, fmt.Errorf("build profile: architecture %q is unknown", s.Arch)
	}
	p := &Profile{DefaultAction: ActErrno, DefaultErrnoRet: pointer(EPERM), Architectures: []string{arch}}
	if s.Compat {
		if s.Arch != syscalls.AMD64 {
			return nil, fmt.Errorf("build profile: %s has no 32-bit calls", s.Arch)
		}
		p.Architectures = append(p.Architectures, ArchX86)
	}
	for _, c := range s.Calls {
		if !p.knows(c.Name) {
			return nil, fmt.Errorf("build profile: %s has no system call %q", s.Arch, c.Name)
		}
		for _, cond := range c.Args {
			if err := cond.check(); err != nil {
				return nil, fmt.Errorf("build profile: %s: %w", c.Name, err)
			}
		}
	}
	p.Syscalls = append(allowRules(s.Calls), p.enosysRules(s.Calls)...)
	return p, nil
}

// knows reports whether a call exists on one of the profile's architectures.
func (p *Profile) knows(name string) bool {
	for _, a := range p.Architectures {
		table, ok := archTable(a)
		if !ok {
			continue
		}
		if _, ok := syscalls.Number(table, name); ok {
			return true
		}
	}
	return false
}

// allowRules is one rule for all calls without conditions, then one for each
// combination of each other call.
func allowRules(calls []Call) []Rule {
	free := map[string]bool{}
	bound := map[string][][]Condition{}
	for _, c := range calls {
		combos := combine(c.Args)
		if len(combos) == 0 {
			free[c.Name] = true
			continue
		}
		bound[c.Name] = append(bound[c.Name], combos...)
	}
	for name, combos := range bound {
		if free[name] {
			delete(bound, name)
			continue
		}
		if bound[name] = distinct(combos); bound[name] == nil {
			free[name] = true
			delete(bound, name)
		}
	}
	fit(free, bound)
	var rules []Rule
	if len(free) > 0 {
		rules = append(rules, Rule{Names: sortedKeys(free), Action: ActAllow})
	}
	for _, name := range sortedKeys(bound) {
		for _, args := range bound[name] {
			rules = append(rules, Rule{Names: []string{name}, Action: ActAllow, Args: args})
		}
	}
	return rules
}

// distinct sorts the conjunctions of a call and holds each once, in as few as
// a profile can hold; nil when the call has to be free.
func distinct(combos [][]Condition) [][]Condition {
	compare := func(a, b []Condition) int { return slices.CompareFunc(a, b, compareConditions) }
	slices.SortFunc(combos, compare)
	combos = bounded(slices.CompactFunc(combos, func(a, b []Condition) bool { return slices.Equal(a, b) }))
	slices.SortFunc(combos, compare)
	return combos
}

// combine multiplies out the alternatives of each argument, because a rule
// can hold one condition for each argument alone (runtimes read two on the
// same argument differently). nil means: any arguments.
func combine(conds []Condition) [][]Condition {
	byArg := map[uint][]Condition{}
	for _, c := range conds {
		byArg[c.Index] = append(byArg[c.Index], c)
	}
	for index, alternatives := range byArg {
		slices.SortFunc(alternatives, compareConditions)
		byArg[index] = fuseAlternatives(slices.Compact(alternatives))
		if slices.ContainsFunc(alternatives, func(c Condition) bool { return c.Value > maxValue || c.ValueTwo > maxValue }) {
			delete(byArg, index)
		}
	}
	for combinations(byArg) > maxCombinations {
		delete(byArg, widest(byArg))
	}
	if len(byArg) == 0 {
		return nil
	}
	out := [][]Condition{nil}
	for index := range uint(6) {
		alternatives := byArg[index]
		if len(alternatives) == 0 {
			continue
		}
		var next [][]Condition
		for _, prefix := range out {
			for _, c := range alternatives {
				next = append(next, append(slices.Clone(prefix), c))
			}
		}
		out = next
	}
	return out
}

// fuseAlternatives is fuse for the alternatives of one argument.
func fuseAlternatives(list []Condition) []Condition {
	combos := make([][]Condition, len(list))
	for i, c := range list {
		combos[i] = []Condition{c}
	}
	return slices.Concat(fuse(combos)...)
}

func combinations(byArg map[uint][]Condition) int {
	n := 1
	for _, alternatives := range byArg {
		n = min(n*len(alternatives), maxCombinations+1)
	}
	return n
}

func widest(byArg map[uint][]Condition) uint {
	var best uint
	for index := range uint(6) {
		if len(byArg[index]) > len(byArg[best]) {
			best = index
		}
	}
	return best
}

// enosysRules answers ENOSYS for the successors of allowed calls that aren't
// allowed themselves.
func (p *Profile) enosysRules(calls []Call) []Rule {
	allowed := map[string]bool{}
	for _, c := range calls {
		allowed[c.Name] = true
	}
	names := map[string]bool{}
	for _, s := range Successors() {
		if allowed[s.New] || !p.knows(s.New) {
			continue
		}
		if slices.ContainsFunc(s.Old, func(old string) bool { return allowed[old] }) {
			names[s.New] = true
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Rule{{Names: sortedKeys(names), Action: ActErrno, ErrnoRet: pointer(ENOSYS)}}
}
