package facts

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestDump(t *testing.T) {
	name := os.Getenv("CONFINE_DUMP")
	if name == "" {
		t.Skip()
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	t0 := time.Now()
	o, err := Extract(context.Background(), data)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v; %d funcs %d regions %d imports %d exports", time.Since(t0), len(o.Facts.Funcs), len(o.Facts.Regions), len(o.Facts.Imports), len(o.Facts.Exports))
	n := 0
	for i, f := range o.Facts.Funcs {
		for _, s := range f.Sites {
			n++
			if s.Unresolved != "" || len(s.Params) > 0 || os.Getenv("CONFINE_ALL") != "" {
				t.Logf("%#x in %s %#x: nrs %v params %v via %d %s", s.Addr, o.Facts.Symbols[uint32(i)], f.Start, s.Nrs, s.Params, s.Via, s.Unresolved)
			}
		}
	}
	t.Logf("%d sites", n)
}
