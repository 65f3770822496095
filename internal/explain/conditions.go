package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// lowerHalf is the mask of conditions that look at an argument's lower 32 bits.
const lowerHalf = 1<<32 - 1

// condition is one condition on an argument, in OCI's terms.
type condition struct {
	index      uint
	op         string
	value, two uint64
}

func conditionsOfProto(platform, call string, list []*confinev1.ArgCondition) []string {
	all := make([]condition, len(list))
	for i, c := range list {
		all[i] = condition{uint(c.GetIndex()), c.GetOp(), c.GetValue(), c.GetValueTwo()}
	}
	return conditions(platform, call, all)
}

func conditionsOf(platform, call string, list []analysis.ArgCondition) []string {
	all := make([]condition, len(list))
	for i, c := range list {
		all[i] = condition{c.Index, c.Op, c.Value, c.ValueTwo}
	}
	return conditions(platform, call, all)
}

// conditions says what a call's arguments must be, one line for each argument,
// by the names that the kernel's headers have for the values.
func conditions(platform, call string, list []condition) []string {
	arch, _ := syscalls.ForPlatform(platform)
	parameters := syscalls.Parameters(call)
	out := []string{}
	for index := range uint(6) {
		var values []string
		for _, c := range list {
			if c.index == index && c.op == "SCMP_CMP_MASKED_EQ" && c.value == lowerHalf {
				values = append(values, syscalls.Describe(arch, call, int(index), c.two))
			}
		}
		if len(values) == 0 {
			continue
		}
		text := strings.Join(values, ", ")
		if int(index) < len(parameters) {
			text = parameters[index].Name + " " + text
		}
		out = append(out, fmt.Sprintf("%s (argument %d)", text, index))
	}
	for _, c := range list {
		if c.op != "SCMP_CMP_MASKED_EQ" || c.value != lowerHalf {
			out = append(out, c.String())
		}
	}
	return slices.Clip(out)
}

// String is a condition as a person would write it.
func (c condition) String() string {
	arg := fmt.Sprintf("argument %d", c.index)
	if c.op == "SCMP_CMP_MASKED_EQ" {
		return fmt.Sprintf("%s & 0x%x == 0x%x", arg, c.value, c.two)
	}
	sign := map[string]string{
		"SCMP_CMP_EQ": "==", "SCMP_CMP_NE": "!=", "SCMP_CMP_LT": "<", "SCMP_CMP_LE": "<=", "SCMP_CMP_GT": ">", "SCMP_CMP_GE": ">=",
	}[c.op]
	if sign == "" {
		sign = c.op
	}
	return fmt.Sprintf("%s %s %d", arg, sign, c.value)
}
