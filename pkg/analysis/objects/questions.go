package objects

import (
	"maps"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// Question is an argument of a function of another object, about which those
// who call it will be asked.
type Question struct {
	Arg int // counted from 0
	// Name is set when the argument points to a string.
	Name bool
	// Passed is set when those are asked, too, that pass it on.
	Passed bool
}

// answerAll answers the questions that are likely to be asked while the code is
// at hand: it takes much memory, and much time to read again.
func (o *Object) answerAll(code *facts.Object) {
	f := code.Facts
	users := map[uint32][]uint32{} // imports that are asked about, to the functions that call them
	for i := range f.Imports {
		if len(o.set.questions[f.Imports[i].Name]) > 0 {
			users[uint32(i)] = nil
		}
	}
	if len(users) == 0 {
		return
	}
	for i := range f.Funcs {
		for _, use := range f.Funcs[i].Imports {
			if list, ok := users[use.Import]; ok && use.Called {
				users[use.Import] = append(list, uint32(i))
			}
		}
	}
	for _, imp := range slices.Sorted(maps.Keys(users)) {
		for _, q := range o.set.questions[f.Imports[imp].Name] {
			l := facts.Argument(f.Machine, q.Arg)
			sites := map[uint32][]facts.Site{}
			for _, fn := range users[imp] {
				sites[fn] = code.ImportCalls(fn, imp, l)
			}
			o.known.keepAnswer(sitesKey(imp, l), sites, true)
			if q.Name {
				o.known.keepNames(namesKey(imp, l), readAll(code, sites), true)
			}
			if q.Passed {
				o.answerPassed(code, sites, map[string]bool{}, maxPassed)
			}
		}
	}
}

// maxPassed bounds the functions through which an argument is followed while
// the code is at hand.
const maxPassed = 3

// answerPassed answers what others of the object pass to functions for the
// parameters that they pass on.
func (o *Object) answerPassed(code *facts.Object, sites map[uint32][]facts.Site, seen map[string]bool, depth int) {
	if depth == 0 {
		return
	}
	for _, w := range slices.Sorted(maps.Keys(sites)) {
		for i := range sites[w] {
			for _, l := range sites[w][i].Params {
				key := passedKey(w, l)
				if seen[key] {
					continue
				}
				seen[key] = true
				passed := passedTo(code, w, l)
				o.known.keepAnswer(key, passed, true)
				o.answerPassed(code, passed, seen, depth-1)
			}
		}
	}
}

// passedTo evaluates a location at every direct call of a function.
func passedTo(code *facts.Object, w uint32, l facts.Loc) map[uint32][]facts.Site {
	m := map[uint32][]facts.Site{}
	for i := range code.Facts.Funcs {
		if slices.ContainsFunc(code.Facts.Funcs[i].Edges, func(e facts.Edge) bool {
			return e.To == w && (e.Kind == facts.EdgeCall || e.Kind == facts.EdgeFall)
		}) {
			m[uint32(i)] = code.Passed(uint32(i), w, l)
		}
	}
	return m
}

// importSites evaluates a location at every call of an import.
func importSites(code *facts.Object, imp uint32, l facts.Loc) map[uint32][]facts.Site {
	m := map[uint32][]facts.Site{}
	f := code.Facts
	for i := range f.Funcs {
		for _, use := range f.Funcs[i].Imports {
			if use.Import == imp && use.Called {
				m[uint32(i)] = code.ImportCalls(uint32(i), imp, l)
			}
		}
	}
	return m
}
