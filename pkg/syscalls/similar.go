package syscalls

import (
	"fmt"
	"strings"
)

// Unknown says that a table doesn't have a name, and which one of it may be
// meant.
func Unknown(arch Arch, name string) string {
	text := fmt.Sprintf("%s has no system call %q", arch.Platform(), name)
	if near := Similar(arch, name); near != "" {
		text += fmt.Sprintf(" (did you mean %q?)", near)
	}
	return text
}

// Similar returns the name of the table that is most like a name which the
// table doesn't have, "" when none is like it.
func Similar(arch Arch, name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	for _, prefix := range []string{"sys_", "__nr_", "__x64_sys_", "__arm64_sys_"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			name = rest
		}
	}
	if len(name) > 64 {
		return ""
	}
	best, least := "", max(1, len(name)/3)+1
	for _, c := range table(arch) {
		if c.Name == name {
			return name
		}
		d := distance(name, c.Name)
		if len(name) >= 3 && strings.HasPrefix(c.Name, name+"_") {
			d = 0 // "epoll" for "epoll_create"
		}
		if d < least || d == least && len(c.Name) == len(name) && len(best) != len(name) {
			best, least = c.Name, d
		}
	}
	return best
}

// distance is the number of letters that must be put in, taken out, replaced
// or exchanged with their neighbour to make b of a.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			d := last[j]
			if a[i] != b[j] {
				d++
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			row[j+1] = min(d, last[j+1]+1, row[j]+1)
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
