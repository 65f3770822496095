package facts

import (
	"fmt"
	"testing"
)

func TestNamed(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 1000} {
		f := &Facts{}
		for i := range n {
			name := fmt.Sprintf("name%05d", i)
			for v := range 1 + i%3 {
				f.Exports = append(f.Exports, Export{Name: name, Version: fmt.Sprint(v)})
			}
			f.Imports = append(f.Imports, Import{Name: name})
		}
		checkNamed(t, f)
		f.index()
		checkNamed(t, f)
	}
}

// TestNamedCollide has many names of one hash.
func TestNamedCollide(t *testing.T) {
	f := &Facts{}
	for i := range 500 {
		f.Exports = append(f.Exports, Export{Name: fmt.Sprintf("%05d", i)})
	}
	f.index()
	for i := range f.byName.entries {
		f.byName.entries[i].hash, f.byName.entries[i].first = 7, uint32(i)
	}
	f.byName.shift, f.byName.buckets = 31, []uint32{0, 500, 500}
	for i := range f.Exports {
		if first, end := f.Named(Symbol{f.Exports[i].Name, 7}); first != i || end != i+1 {
			t.Fatalf("%s: %d to %d", f.Exports[i].Name, first, end)
		}
	}
	if first, end := f.Named(Symbol{"00500x", 7}); first != end {
		t.Errorf("a name that isn't there: %d to %d", first, end)
	}
}

func checkNamed(t *testing.T, f *Facts) {
	t.Helper()
	for i := range f.Imports {
		first, end := f.Named(f.Symbol(uint32(i)))
		if want := 1 + i%3; end-first != want || f.Exports[first].Name != f.Imports[i].Name || f.Exports[end-1].Name != f.Imports[i].Name {
			t.Errorf("%s: exports %d to %d, want %d", f.Imports[i].Name, first, end, want)
		}
	}
	for _, name := range []string{"", "name", "name00000x", "zzz"} {
		if first, end := f.Named(SymbolOf(name)); first != end {
			t.Errorf("%q, which isn't there: exports %d to %d", name, first, end)
		}
	}
}
