package link

import (
	"sort"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// Lookup returns the indexes of the exports that a reference can bind to in
// one object: the one of the version asked for, or the default one. An object
// without versions satisfies every reference (glibc, elf/dl-lookup.c).
func Lookup(f *facts.Facts, name, version string) []int {
	e := f.Exports
	i := sort.Search(len(e), func(i int) bool { return e[i].Name >= name })
	var exact, plain, any []int
	for ; i < len(e) && e[i].Name == name; i++ {
		any = append(any, i)
		switch {
		case e[i].Version == version:
			exact = append(exact, i)
		case e[i].Version == "" || version == "" && !e[i].Hidden:
			plain = append(plain, i)
		}
	}
	switch {
	case len(exact) > 0 && version != "":
		return exact
	case len(exact)+len(plain) > 0:
		return append(exact, plain...)
	case version == "":
		return any
	}
	return nil
}

// LookupAny returns all exports of a name, whatever their version.
func LookupAny(f *facts.Facts, name string) []int {
	e := f.Exports
	i := sort.Search(len(e), func(i int) bool { return e[i].Name >= name })
	var out []int
	for ; i < len(e) && e[i].Name == name; i++ {
		out = append(out, i)
	}
	return out
}
