package seccomp

import (
	"math/bits"
	"slices"
)

// maxConditions bounds the conditions of a whole profile: each takes up to
// seven instructions of the filter, and the kernel takes 4096 at most
// (BPF_MAXINSNS).
const maxConditions = 400

// fuse makes one conjunction of two that differ in a single bit of a single
// argument, as long as there are such: what they allow stays the same.
func fuse(combos [][]Condition) [][]Condition {
	for again := true; again; {
		again = false
		for i := 0; i < len(combos); i++ {
			for k := i + 1; k < len(combos); k++ {
				if both, ok := fused(combos[i], combos[k]); ok {
					combos[i] = both
					combos = slices.Delete(combos, k, k+1)
					again = true
					k--
				}
			}
		}
	}
	return combos
}

func fused(a, b []Condition) ([]Condition, bool) {
	if len(a) != len(b) {
		return nil, false
	}
	differ := -1
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		if differ >= 0 {
			return nil, false
		}
		differ = i
	}
	if differ < 0 {
		return a, true
	}
	x, y := a[differ], b[differ]
	bit := x.ValueTwo ^ y.ValueTwo
	if x.Index != y.Index || x.Op != MaskedEqual || y.Op != MaskedEqual || x.Value != y.Value || bits.OnesCount64(bit) != 1 || bit&x.Value == 0 {
		return nil, false
	}
	out := slices.Clone(a)
	out[differ].Value &^= bit
	out[differ].ValueTwo &^= bit
	return out, true
}

// bounded returns the conjunctions of one call as few as a profile can hold;
// nil when that is only possible without any. What it leaves out makes the
// call freer.
func bounded(combos [][]Condition) [][]Condition {
	combos = fuse(combos)
	if len(combos) <= maxCombinations {
		return combos
	}
	var all []Condition
	for _, c := range combos {
		if !sameArguments(c, combos[0]) {
			return nil
		}
		all = append(all, c...)
	}
	return combine(all)
}

func sameArguments(a, b []Condition) bool {
	return slices.EqualFunc(a, b, func(x, y Condition) bool { return x.Index == y.Index })
}

// fit frees the calls with the most conditions until the rest fits a filter.
func fit(free map[string]bool, bound map[string][][]Condition) {
	count := func(name string) int {
		n := 0
		for _, c := range bound[name] {
			n += len(c)
		}
		return n
	}
	for {
		total, most := 0, ""
		for _, name := range sortedKeys(bound) {
			n := count(name)
			if total += n; most == "" || n > count(most) {
				most = name
			}
		}
		if total <= maxConditions {
			return
		}
		free[most] = true
		delete(bound, most)
	}
}

// WithoutArgs returns a profile that allows the same calls with any arguments.
func (p *Profile) WithoutArgs() *Profile {
	out := *p
	var calls []Call
	for _, name := range p.Allowed() {
		calls = append(calls, Call{Name: name})
	}
	out.Syscalls = allowRules(calls)
	for _, r := range p.Syscalls {
		if r.Action != ActAllow {
			out.Syscalls = append(out.Syscalls, r)
		}
	}
	return &out
}

// Narrowed lists the calls that are allowed with certain arguments only,
// sorted.
func (p *Profile) Narrowed() []string {
	narrow := map[string]bool{}
	for _, r := range p.Syscalls {
		for _, name := range r.Names {
			if r.Action == ActAllow {
				if was, seen := narrow[name]; !seen || was {
					narrow[name] = len(r.Args) > 0
				}
			}
		}
	}
	for name, is := range narrow {
		if !is {
			delete(narrow, name)
		}
	}
	return sortedKeys(narrow)
}
