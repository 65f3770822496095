package reach

import (
	"fmt"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// TestWords adds words before and after the table grows: with hashes that are
// spread over the slots, and with all in one place, where some find no slot.
func TestWords(t *testing.T) {
	for _, spread := range []bool{true, false} {
		t.Run(fmt.Sprint("spread ", spread), func(t *testing.T) {
			var w words
			symbol := func(i int) facts.Symbol { return facts.SymbolOf(fmt.Sprint("word ", i)) }
			if w.find(symbol(0)) != nil {
				t.Error("a word is there before one was added")
			}
			w.grow()
			if !spread {
				w.odd = 0
			}
			check := func(n int) {
				t.Helper()
				for i := range n + 10 {
					x := w.find(symbol(i))
					if i >= n {
						if x != nil {
							t.Errorf("word %d is there although it wasn't added", i)
						}
						continue
					}
					if x == nil || x.Name != symbol(i).Name || x.text != uint32(i+1) {
						t.Fatalf("word %d of %d: %+v", i, n, x)
					}
				}
			}
			const few, many = 100, 5000
			for i := range few {
				w.word(symbol(i)).text = uint32(i + 1)
			}
			check(few)
			if !spread && len(w.more) != few-maxProbes {
				t.Errorf("%d words found no slot, want %d", len(w.more), few-maxProbes)
			}
			for i := range many {
				w.word(symbol(i)).text = uint32(i + 1)
			}
			check(many)
			if len(w.list) != many {
				t.Errorf("%d words, want %d: one is there twice", len(w.list), many)
			}
		})
	}
}
