package syscalls

import (
	"fmt"
	"strconv"
	"strings"
)

// Format writes a call as a program would, from what the registers of its
// arguments hold: constants by their names and values, addresses and what isn't
// known to be anything else in base 16. Without args it is the name alone.
func Format(arch Arch, call string, args []uint64) string {
	if len(args) == 0 {
		return call
	}
	parameters := Parameters(call)
	if parameters == nil {
		parameters = make([]Parameter, len(args)) // of the kernel's own making, or unknown
	}
	var out []string
	for i, p := range parameters[:min(len(parameters), len(args))] {
		out = append(out, formatArg(arch, call, i, p, args[i]))
	}
	return call + "(" + strings.Join(out, ", ") + ")"
}

func formatArg(arch Arch, call string, i int, p Parameter, v uint64) string {
	switch {
	case strings.Contains(p.Type, "*"):
		if v == 0 {
			return "NULL"
		}
		return fmt.Sprintf("%#x", v)
	case p.Type == "umode_t":
		return fmt.Sprintf("%#o", uint32(v))
	}
	if name, number := Describe(arch, call, i, v), number(uint32(v)); name != plain(uint64(uint32(v))) {
		return name + "=" + number
	}
	if strings.Contains(p.Type, "long") || p.Type == "size_t" || p.Type == "loff_t" || p.Type == "" {
		if v >= 1<<32 {
			return fmt.Sprintf("%#x", v)
		}
	}
	return number(uint32(v))
}

// number is plain with more of the small numbers in base 10.
func number(v uint32) string {
	if v < 256 {
		return strconv.Itoa(int(v))
	}
	return plain(uint64(v))
}
