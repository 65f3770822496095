package analysis

import (
	"maps"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/reach"
)

const (
	// argMask is what of an argument conditions compare. Callers may leave
	// anything in the upper half of a register that holds an int, and the
	// kernel looks at the lower half alone; of the parameters that are longs,
	// only their lower halves have a meaning.
	argMask = 1<<32 - 1
	// opMasked is the OCI operator of all conditions: argument & Value ==
	// ValueTwo.
	opMasked = "SCMP_CMP_MASKED_EQ"
	// maxArgValues bounds the values of one argument; with more it is free.
	maxArgValues = 64
)

// narrow takes in what one program's sites can pass to a call: an argument
// keeps conditions only as long as every program has some for it.
func (c *call) narrow(args []reach.Arg) {
	found := map[int][]uint32{}
	for _, a := range args {
		if c.args == nil || c.args[a.Index] != nil {
			found[a.Index] = a.Values
		}
	}
	if c.args == nil {
		c.args = map[int]map[uint32]bool{}
		for i := range found {
			c.args[i] = map[uint32]bool{}
		}
	}
	for i, known := range c.args {
		for _, v := range found[i] {
			known[v] = true
		}
		if len(found[i]) == 0 || len(known) > maxArgValues {
			delete(c.args, i)
		}
	}
}

// conditions lists what a call's arguments must meet: those on one argument
// are alternatives.
func (c *call) conditions() []ArgCondition {
	var out []ArgCondition
	for _, i := range slices.Sorted(maps.Keys(c.args)) {
		for _, v := range slices.Sorted(maps.Keys(c.args[i])) {
			out = append(out, ArgCondition{Index: uint(i), Op: opMasked, Value: argMask, ValueTwo: uint64(v)})
		}
	}
	return out
}
