package storm

import (
	"maps"
	"slices"
)

// Comparison sums up what became of executions.
type Comparison struct {
	// Made and Seen count executions; Missed were not seen, Duplicated were
	// seen too often, Extra are of files that were not executed.
	Made, Seen, Missed, Duplicated, Extra uint64
}

// Compare holds what was seen against what was executed; keys: path of the
// file. each is called for every file that differs, the executed ones first,
// by path; it may be nil.
func Compare(made, seen map[string]uint64, each func(file string, made, seen uint64)) Comparison {
	var c Comparison
	for _, file := range slices.Sorted(maps.Keys(made)) {
		want, got := made[file], seen[file]
		c.Made += want
		c.Seen += min(want, got)
		c.Missed += want - min(want, got)
		c.Duplicated += got - min(want, got)
		if got != want && each != nil {
			each(file, want, got)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(seen)) {
		if made[file] == 0 {
			c.Extra += seen[file]
			if each != nil {
				each(file, 0, seen[file])
			}
		}
	}
	return c
}
