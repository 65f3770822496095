package facts

import "sort"

// index makes Named fast.
func (f *Facts) index() {
	f.byName = make(map[string]int32, len(f.Exports))
	for i := range f.Exports {
		if i == 0 || f.Exports[i].Name != f.Exports[i-1].Name {
			f.byName[f.Exports[i].Name] = int32(i)
		}
	}
}

// Named returns where the exports of a name begin and end in Exports; both are
// equal when there are none.
func (f *Facts) Named(name string) (first, end int) {
	if f.byName != nil {
		i, ok := f.byName[name]
		if !ok {
			return 0, 0
		}
		first = int(i)
	} else {
		first = sort.Search(len(f.Exports), func(i int) bool { return f.Exports[i].Name >= name })
	}
	for end = first; end < len(f.Exports) && f.Exports[end].Name == name; end++ {
	}
	return first, end
}
