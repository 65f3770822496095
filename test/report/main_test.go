package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const ok = `{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	const skip = `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: needs root\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
`
	const cannot = `{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:3: impossible on this machine: no such instruction\n"}
{"Action":"skip","Package":"p","Test":"TestD"}
`
	const fail = `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
`
	const build = `{"Action":"build-output","ImportPath":"q","Output":"q.go:1: broken\n"}
{"Action":"fail","Package":"q"}
`
	for _, c := range []struct {
		name, in   string
		requireAll bool
		good       bool
		wants      []string
	}{
		{"passed", ok, true, true, []string{"ok  \tp\t0.1s", "1 passed, 0 failed, 0 skipped"}},
		{"skipped", ok + skip, false, true, []string{"p.TestB: b_test.go:3: needs root", "1 skipped"}},
		{"skip not allowed", ok + skip, true, false, []string{"needs root"}},
		{"impossible", ok + cannot, true, true, []string{"not to be had here:\n  p.TestD: d_test.go:3: impossible on this machine: no such instruction", "1 skipped"}},
		{"impossible and skipped", ok + cannot + skip, true, false, []string{"left out:\n  p.TestB", "2 skipped"}},
		{"failed", ok + fail, false, false, []string{"c_test.go:3: wrong", "1 failed"}},
		{"not built", ok + build, false, false, []string{"q.go:1: broken"}},
		{"nothing", "", false, false, []string{"no test ran"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := &report{w: &out, output: map[string][]string{}}
			if err := r.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if good := r.finish(c.requireAll); good != c.good {
				t.Errorf("good = %t, want %t", good, c.good)
			}
			for _, want := range c.wants {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), "noise") {
				t.Errorf("output shows what a passed test printed:\n%s", out.String())
			}
		})
	}
}
