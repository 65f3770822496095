package settle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func FuzzListening(f *testing.F) {
	f.Add("  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1\n", uint16(80))
	f.Add("  0: :1F90", uint16(0))
	f.Fuzz(func(t *testing.T, text string, port uint16) {
		before := parseListening(strings.NewReader(text))
		if limit := strings.Count(text, "\n") + 1; len(before) > limit {
			t.Errorf("%d ports in %d lines", len(before), limit)
		}
		line := fmt.Sprintf("  1: 00000000000000000000000000000000:%04X 00000000000000000000000000000000:0000 0A 00000000\n", port)
		if got := parseListening(strings.NewReader(line)); !slices.Equal(got, []uint16{port}) {
			t.Errorf("%q: ports %v, want %d", line, got, port)
		}
	})
}
