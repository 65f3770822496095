package main

import (
	"runtime"
	"slices"
	"sort"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"

	"github.com/confinehq/confine/pkg/syscalls"
)

// renamed are sysdig's names of calls that Linux names differently. They come
// from the table of its driver.
func renamed() map[string]string {
	return map[string]string{
		"pread": "pread64", "pwrite": "pwrite64", "prlimit": "prlimit64", "umount": "umount2",
	}
}

// ambiguous are the names under which sysdig reports more than one call, and
// those calls. They come from the table of its driver.
func ambiguous() map[string][]string {
	return map[string][]string{
		"pipe": {"pipe", "pipe2"}, "eventfd": {"eventfd", "eventfd2"}, "signalfd": {"signalfd", "signalfd4"},
		"inotify_init": {"inotify_init", "inotify_init1"}, "dup": {"dup", "dup2", "dup3"}, "accept": {"accept", "accept4"},
	}
}

// internal are events of sysdig's own that it gives a call's name.
func internal() []string {
	return []string{"procexit", "switch", "syscall", "signaldeliver", "page_fault", "cpu_hotplug", "tracer", "notification", "pluginevent", "container", "drop"}
}

// calls is the set of calls that programs made.
type calls struct {
	arch      syscalls.Arch
	renamed   map[string]string
	ambiguous map[string][]string
	made      map[string]map[int32]bool // by program
	unclear   map[string]bool           // sysdig's names of calls that can't be told
	unknown   map[string]bool           // names that no table knows
}

func newCalls() *calls {
	return &calls{
		arch: syscalls.Arch(runtime.GOARCH), renamed: renamed(), ambiguous: ambiguous(),
		made: map[string]map[int32]bool{}, unclear: map[string]bool{}, unknown: map[string]bool{},
	}
}

// add notes that a program made a call of sysdig's name.
func (c *calls) add(program, name string) {
	if _, ok := c.ambiguous[name]; ok {
		c.unclear[name] = true
		return
	}
	if real, ok := c.renamed[name]; ok {
		name = real
	}
	nr, ok := syscalls.Number(c.arch, name)
	if !ok {
		if !slices.Contains(internal(), name) && len(c.unknown) < 100 {
			c.unknown[name] = true
		}
		return
	}
	set := c.made[program]
	if set == nil {
		set = map[int32]bool{}
		c.made[program] = set
	}
	set[int32(nr)] = true
}

// recorded lists the calls by program.
func (c *calls) recorded() []*confinev1.RecordedCalls {
	var out []*confinev1.RecordedCalls
	for program, set := range c.made {
		r := &confinev1.RecordedCalls{Process: program}
		for nr := range set {
			r.Nrs = append(r.Nrs, nr)
		}
		slices.Sort(r.Nrs)
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Process < out[j].Process })
	return out
}

func sorted(set map[string]bool) []string {
	var out []string
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
