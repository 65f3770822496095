package reach

import (
	"fmt"
	"slices"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

func memberOf(t *testing.T, exports ...facts.Export) *member {
	t.Helper()
	slices.SortFunc(exports, func(a, b facts.Export) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	f, err := facts.Decode(facts.Encode(&facts.Facts{Funcs: []facts.Func{{Start: 0x1000, End: 0x1010}}, Exports: exports}))
	if err != nil {
		t.Fatal(err)
	}
	return &member{facts: f}
}

// TestDefinitions adds members one after the other, so that the table grows.
// costarring and liquid have the same hash, and so have declinate and macallums,
// which one member exports.
func TestDefinitions(t *testing.T) {
	first := []facts.Export{{Name: "shared", Func: 1}, {Name: "costarring", Func: 1}, {Name: "memcpy", Func: 1}}
	for i := range 100 {
		first = append(first, facts.Export{Name: fmt.Sprint("own", i), Func: 1})
	}
	members := []*member{
		memberOf(t, first...),
		memberOf(t),
		memberOf(t, facts.Export{Name: "shared", Func: 1}, facts.Export{Name: "liquid", Func: 1, IFunc: true}),
		memberOf(t, facts.Export{Name: "memcpy", Func: 1, IFunc: true}, facts.Export{Name: "shared", Func: 1}),
		memberOf(t, facts.Export{Name: "declinate", Func: 1}, facts.Export{Name: "macallums", Func: 1, IFunc: true}),
	}
	for _, pair := range [][2]string{{"costarring", "liquid"}, {"declinate", "macallums"}} {
		if facts.SymbolOf(pair[0]).Hash() != facts.SymbolOf(pair[1]).Hash() {
			t.Fatalf("%s and %s have different hashes", pair[0], pair[1])
		}
	}
	var d definitions
	for i := range members {
		d.add(members[:i+1], int32(i))
	}
	symbols := &facts.Facts{}
	check := func() {
		t.Helper()
		for _, c := range []struct {
			name     string
			members  []int32
			indirect bool
		}{
			{"shared", []int32{0, 2, 3}, false}, {"own7", []int32{0}, false}, {"nowhere", nil, false},
			{"memcpy", []int32{0, 3}, true}, {"costarring", []int32{0}, false}, {"liquid", []int32{2}, true},
			{"declinate", []int32{4}, false}, {"macallums", []int32{4}, true},
		} {
			var got []int32
			d.of(facts.SymbolOf(c.name), members, func(m int32, first, end int) bool {
				got = append(got, m)
				if e := members[m].facts.Exports[first:end]; len(e) != 1 || e[0].Name != c.name {
					t.Errorf("%s: exports %v", c.name, e)
				}
				return true
			})
			if !slices.Equal(got, c.members) {
				t.Errorf("%s: members %v, want %v", c.name, got, c.members)
			}
			symbols.Imports = []facts.Import{{Name: c.name}}
			if got := d.indirect(symbols, 0, members); got != c.indirect {
				t.Errorf("%s: indirect is %v, want %v", c.name, got, c.indirect)
			}
		}
		count := 0
		d.of(facts.SymbolOf("shared"), members, func(int32, int, int) bool { count++; return false })
		if count != 1 {
			t.Errorf("visited %d members, want the first alone", count)
		}
	}
	check()
	// All in one chain.
	d.odd = 0
	clear(d.heads)
	for i := range d.all {
		d.link(uint32(i + 1))
	}
	check()
}

// TestDefinitionsNone asks what exports a name when no member exports anything.
func TestDefinitionsNone(t *testing.T) {
	members := []*member{memberOf(t)}
	var d definitions
	d.add(members, 0)
	d.of(facts.SymbolOf("read"), members, func(int32, int, int) bool { t.Error("somebody exports it"); return true })
	if d.indirect(&facts.Facts{Imports: []facts.Import{{Name: "read"}}}, 0, members) {
		t.Error("a resolver chooses it")
	}
}

func TestScope(t *testing.T) {
	s := scope{startup: 2, from: 4, end: 6}
	for m, want := range []bool{true, true, false, false, true, true, false} {
		if s.has(int32(m)) != want {
			t.Errorf("member %d: %v", m, !want)
		}
	}
}
