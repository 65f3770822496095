package analysis_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/rootfs"
)

// checker holds the graphs, the facts and the chains of an analysis to what
// they promise.
type checker struct {
	bad []string
	// ways are the edges of all programs; key: printed frames.
	ways map[string]bool
}

func (c *checker) wrong(format string, args ...any) {
	if len(c.bad) < 20 {
		c.bad = append(c.bad, fmt.Sprintf(format, args...))
	}
}

// watch has an analysis show its graphs and facts to the checker.
func (c *checker) watch(o *analysis.Options) {
	c.ways = map[string]bool{}
	o.Explain = true
	o.Graph = func(program string, t *reach.Trail) error {
		for _, w := range t.Check() {
			c.wrong("%s: %s", program, w)
		}
		name := map[uint32]string{}
		var all []*reach.NodeRecord
		if err := t.Nodes(program, func(r *reach.NodeRecord) error {
			name[r.ID] = key(string(r.Kind), r.Object, r.Address, r.Name)
			all = append(all, r)
			return nil
		}); err != nil {
			return err
		}
		for _, r := range all {
			if r.From == 0 {
				c.ways["root "+r.Edge+" "+name[r.ID]] = true
			} else if r.Steps < 2 {
				c.wrong("%s: node %d has a predecessor and is %d steps away", program, r.ID, r.Steps)
			}
			for _, x := range r.To {
				if name[x.To] == "" {
					c.wrong("%s: node %d leads to %d, which isn't reached", program, r.ID, x.To)
				}
				c.ways[name[r.ID]+" "+x.Edge+" "+name[x.To]] = true
			}
		}
		return nil
	}
	o.Facts = func(path string, f *facts.Facts) error {
		for _, w := range f.Invariants() {
			c.wrong("facts of %s: %s", path, w)
		}
		return nil
	}
}

func key(kind, object string, address uint64, name string) string {
	if kind == "text" {
		return fmt.Sprintf("text %q", name)
	}
	return fmt.Sprintf("%s %s+%#x", kind, object, address)
}

// passing are the edges by which only numbers go: the graph has none of them,
// or another.
var passing = []string{"variable", "callback", "indirect"}

// chain checks that each step of a chain is an edge of a graph, and that it
// starts where a program does.
func (c *checker) chain(what string, chain []analysis.Frame, site analysis.Site) {
	if len(chain) < 2 || chain[0].Kind != "program" || chain[0].Edge != "program" {
		c.wrong("%s: the chain doesn't begin with a program: %v", what, chain)
		return
	}
	last := ""
	for i, f := range chain[1:] {
		at := key(f.Kind, f.Object, f.Address, f.Symbol)
		switch {
		case f.Kind == "program":
			if !slices.Contains([]string{"interpreter", "command", "exec"}, f.Edge) {
				c.wrong("%s: a program is reached by %q", what, f.Edge)
			}
			last = ""
			continue
		case last == "" && !c.ways["root "+f.Edge+" "+at]:
			c.wrong("%s: %s is no root by %q", what, at, f.Edge)
		case last != "" && !slices.Contains(passing, f.Edge) && !c.ways[last+" "+f.Edge+" "+at]:
			c.wrong("%s: step %d, there is no edge %s %s %s", what, i+1, last, f.Edge, at)
		}
		last = at
	}
	end := chain[len(chain)-1]
	if end.Kind != "function" || site.Object != end.Object || site.Address != 0 && (site.Address < end.Address || site.Address >= end.Address+end.Size) {
		c.wrong("%s: the site %v isn't in %v", what, site, end)
	}
}

// result checks all chains of a result.
func (c *checker) result(r *analysis.Result) error {
	for _, s := range r.Syscalls {
		if len(s.Reasons) == 0 {
			c.wrong("%s has no reason", s.Name)
		}
		shortest := 0
		for i, reason := range s.Reasons {
			if reason.Kind == "site" {
				c.chain(s.Name, reason.Chain, reason.Site)
			}
			if len(reason.Chain) < shortest {
				c.wrong("%s: reason %d is shorter than the one before", s.Name, i+1)
			}
			shortest = len(reason.Chain)
		}
		c.shortest(r, &s)
	}
	if r.Explanation == nil {
		c.wrong("there is no explanation")
		return c.err()
	}
	for _, p := range r.Explanation.Places {
		c.chain(fmt.Sprintf("place %#x of %q in %s", p.Address, p.Call, p.Object), r.Explanation.Chain(p.Step), p.Site)
	}
	for i, s := range r.Explanation.Steps {
		if s.Parent >= i {
			c.wrong("step %d comes before its parent %d", i, s.Parent)
		}
	}
	for _, a := range r.Explanation.Absent {
		if slices.ContainsFunc(r.Syscalls, func(s analysis.Syscall) bool { return s.Name == a.Call }) {
			c.wrong("%s is allowed and has an absent place", a.Call)
		}
	}
	return c.err()
}

// shortest checks that no place of a call has a shorter chain than its first
// reason.
func (c *checker) shortest(r *analysis.Result, s *analysis.Syscall) {
	if r.Explanation == nil || len(s.Reasons) == 0 || s.Reasons[0].Kind != "site" {
		return
	}
	places, least := 0, 0
	for _, p := range r.Explanation.Places {
		if p.Call != s.Name {
			continue
		}
		if n := len(r.Explanation.Chain(p.Step)); places == 0 || n < least {
			least = n
		}
		places++
	}
	if places == 0 {
		c.wrong("%s has no place", s.Name)
	} else if n := len(s.Reasons[0].Chain); n > least {
		c.wrong("%s: the first chain has %d steps, and there is a place with %d", s.Name, n, least)
	}
}

func (c *checker) err() error {
	if len(c.bad) == 0 {
		return nil
	}
	return fmt.Errorf("contradictions:\n%s", strings.Join(c.bad, "\n"))
}

// chains compares the first chains of calls with those that a case states.
func (c *testCase) chains(r *analysis.Result) error {
	calls, wants := callNames(r), map[string]string{}
	for _, want := range c.all("chain") { // those of a variant come last
		name, text, _ := strings.Cut(strings.ReplaceAll(want, "$CASE", c.out()), " ")
		wants[name] = text
	}
	for name, text := range wants {
		s, there := calls[name]
		if text == "" || !there || len(s.Reasons) == 0 {
			return fmt.Errorf("chain of %s: it isn't in the result", name)
		}
		if got := steps(s.Reasons[0].Chain); !strings.HasSuffix(got, strings.TrimSpace(text)) {
			return fmt.Errorf("chain of %s: %s\nwant its end to be %s", name, got, text)
		}
	}
	return nil
}

// steps writes a chain as cases do.
func steps(chain []analysis.Frame) string {
	var out []string
	for _, f := range chain {
		name := f.Symbol
		switch f.Kind {
		case "program":
			name = filepath.Base(f.Object)
		case "data":
			name = "[" + name + "]"
		case "text":
			name = strconv.Quote(name)
		}
		out = append(out, f.Edge+" "+name)
	}
	return strings.Join(out, ", ")
}

// TestChainsOfRealPrograms checks graphs, facts and chains of programs of this
// machine, and has objdump find the instructions of direct steps.
func TestChainsOfRealPrograms(t *testing.T) {
	root, err := rootfs.NewDir("/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	for _, program := range []string{"/bin/true", "/bin/bash", "/usr/bin/perl", "/usr/bin/redis-server", "/usr/sbin/nginx", "/bin/busybox"} {
		t.Run(filepath.Base(program), func(t *testing.T) {
			if _, err := os.Stat(program); err != nil {
				if os.Getenv("CONFINE_REQUIRE_ALL") != "" {
					t.Fatal("it is not installed, and nothing may be left out")
				}
				t.Skip("it is not installed")
			}
			var c checker
			o := analysis.Options{NoFollow: true}
			c.watch(&o)
			r, err := analysis.Analyze(t.Context(), analysis.Request{Root: root, Programs: []analysis.Program{{Path: program}}, Options: o})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.result(r); err != nil {
				t.Error(err)
			}
			disassembled(t, r)
		})
	}
}

// disassembled has objdump show the functions of some chains, which must hold
// the steps to the next one.
func disassembled(t *testing.T, r *analysis.Result) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		if os.Getenv("CONFINE_REQUIRE_ALL") != "" {
			t.Fatal("objdump is not installed, and nothing may be left out")
		}
		return
	}
	seen, hidden := map[string]bool{}, 0
	for _, s := range r.Syscalls {
		for i := range s.Reasons[0].Chain[:max(0, len(s.Reasons[0].Chain)-1)] {
			from, to := s.Reasons[0].Chain[i], s.Reasons[0].Chain[i+1]
			k := key(from.Kind, from.Object, from.Address, "") + key(to.Kind, to.Object, to.Address, "")
			if from.Kind != "function" || to.Kind != "function" || from.Object != to.Object || seen[k] || len(seen) == 40 ||
				to.Edge != "call" && to.Edge != "address-taken" {
				continue
			}
			seen[k] = true
			out, err := exec.CommandContext(t.Context(), objdump, "-d", "--no-show-raw-insn",
				fmt.Sprintf("--start-address=%d", from.Address), fmt.Sprintf("--stop-address=%d", from.Address+from.Size), from.Object).Output()
			if err != nil {
				t.Fatal(err)
			}
			if !leadsTo(string(out), to.Address, to.Address+to.Size, from.Address+from.Size) {
				if to.Edge == "address-taken" {
					hidden++ // by a resolver's slot, or by a table of distances
					continue
				}
				t.Errorf("objdump finds no way from %s+%#x to %#x (%s)", from.Object, from.Address, to.Address, to.Edge)
			}
		}
	}
	if len(seen) < 3 || hidden > len(seen)/4 {
		t.Errorf("%d steps were looked at, of which objdump doesn't show %d", len(seen), hidden)
	}
}

// leadsTo reports whether an instruction names an address in [start, end), or
// the code runs on into it.
func leadsTo(text string, start, end, next uint64) bool {
	if next == start {
		return true
	}
	for _, m := range regexp.MustCompile(`\b(?:0x)?([0-9a-f]{3,16})\b`).FindAllStringSubmatch(text, -1) {
		if v, err := strconv.ParseUint(m[1], 16, 64); err == nil && v >= start && v < end {
			return true
		}
	}
	return false
}
