package link

import "github.com/confinehq/confine/pkg/analysis/facts"

// Lookup appends the indexes of the exports that a reference can bind to in
// one object: the one of the version asked for, or the default one. An object
// without versions satisfies every reference (glibc, elf/dl-lookup.c).
func Lookup(out []int, f *facts.Facts, s facts.Symbol, version string) []int {
	first, end := f.Named(s)
	return LookupIn(out, f, first, end, version)
}

// LookupIn is Lookup among the exports of the symbol, which begin and end there.
func LookupIn(out []int, f *facts.Facts, first, end int, version string) []int {
	before := len(out)
	if version != "" {
		for i := first; i < end; i++ {
			if f.Exports[i].Version == version {
				out = append(out, i)
			}
		}
		if len(out) > before {
			return out
		}
	}
	for i := first; i < end; i++ {
		if version == "" && f.Exports[i].Version == "" {
			out = append(out, i)
		}
	}
	for i := first; i < end; i++ {
		e := &f.Exports[i]
		if e.Version != version && (e.Version == "" || version == "" && !e.Hidden) {
			out = append(out, i)
		}
	}
	if len(out) == before && version == "" {
		return All(out, first, end)
	}
	return out
}

// LookupAny appends all exports of a name, whatever their version.
func LookupAny(out []int, f *facts.Facts, s facts.Symbol) []int {
	first, end := f.Named(s)
	return All(out, first, end)
}

// All appends the indexes of exports that begin and end there.
func All(out []int, first, end int) []int {
	for i := first; i < end; i++ {
		out = append(out, i)
	}
	return out
}
