package storm

import (
	"fmt"
	"slices"
	"testing"
)

func TestCompare(t *testing.T) {
	var told []string
	c := Compare(map[string]uint64{"a": 3, "b": 2, "c": 1}, map[string]uint64{"a": 1, "b": 4, "c": 1, "x": 5}, func(file string, made, seen uint64) {
		told = append(told, fmt.Sprint(file, made, seen))
	})
	if want := (Comparison{Made: 6, Seen: 4, Missed: 2, Duplicated: 2, Extra: 5}); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	if want := []string{"a3 1", "b2 4", "x0 5"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
