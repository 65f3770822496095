package observe

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Seen is what a Collector has to say in the end.
type Seen struct {
	// Files are sorted by path.
	Files []*confinev1.FileSeen
	// Missing is what could not be read or kept.
	Missing []*confinev1.Incomplete
	// Notes is what a reader should know although nothing is missing.
	Notes []*confinev1.Incomplete
	// Outside holds the paths of programs that were executed by processes from
	// outside alone; they aren't among the files.
	Outside map[string]bool
}

// Finish waits for the files to be read.
func (c *Collector) Finish() Seen {
	c.work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Seen{Missing: c.missing, Outside: map[string]bool{}}
	files, other := c.merge()
	for _, f := range files {
		if left := c.include(f); left && f.seen.Executed == 0 {
			out.Outside[f.seen.Path] = true
		}
	}
	for _, f := range files {
		c.settle(f, &out, other)
	}
	slices.SortFunc(out.Files, func(a, b *confinev1.FileSeen) int {
		if d := strings.Compare(a.Path, b.Path); d != 0 {
			return d
		}
		return strings.Compare(a.Sha256, b.Sha256)
	})
	if c.full {
		out.Missing = append(out.Missing, &confinev1.Incomplete{Kind: "too-many-files", Detail: fmt.Sprintf("the container executed or mapped more than %d different files, or had more refused or missing than is kept; the rest is not in the result", maxFiles)})
	}
	return out
}

// settle decides whether a file belongs to the container, and says what is to
// be said about it. other maps paths that were given up to those that stand for
// them.
func (c *Collector) settle(f *file, out *Seen, other map[string]string) {
	strangers := 0
	for by := range f.by {
		if path, ok := other[by]; ok {
			by = path
		}
		switch {
		case out.Outside[by]:
			strangers++
		case by != "" && !slices.Contains(f.seen.By, by):
			f.seen.By = append(f.seen.By, by)
		}
	}
	if strangers > 0 && strangers == len(f.by) {
		f.seen.Mapped = false // by programs that don't count
	}
	if out.Outside[f.seen.Path] {
		out.Notes = append(out.Notes, &confinev1.Incomplete{
			Kind: "executed-from-outside", Object: f.seen.Path,
			Detail: "was executed by somebody who entered the container from outside (ctr task exec, kubectl exec), and is not part of the profile; --exec makes it part",
		})
	}
	if f.seen.Executed == 0 && !f.seen.Mapped {
		return
	}
	sort.Strings(f.seen.By)
	if c.isCode(f) {
		out.Notes = append(out.Notes, &confinev1.Incomplete{
			Kind: "jit", Object: f.base,
			Detail: "memory that " + strings.Join(f.seen.By, ", ") + " makes code in at run time, which is taken to make only calls that the code around it can make",
		})
		return
	}
	out.Files = append(out.Files, f.seen)
	if f.seen.Error != "" {
		out.Missing = append(out.Missing, &confinev1.Incomplete{
			Kind: f.lack, Object: f.seen.Path,
			Detail: "was executed or mapped but cannot be analysed: " + f.seen.Error,
		})
		return
	}
	if f.seen.Path != f.base {
		out.Notes = append(out.Notes, &confinev1.Incomplete{
			Kind: "replaced-object", Object: f.seen.Path,
			Detail: "the file was replaced or changed during the run; this is what was executed or mapped later",
		})
	} else if f.live {
		out.Notes = append(out.Notes, &confinev1.Incomplete{
			Kind: "captured-object", Object: f.seen.Path,
			Detail: "has no path in the container's root that leads to it (in memory, unlinked, or in mounts of its own); its content was taken from the process that ran or mapped it",
		})
	}
}

// isCode reports whether a file is memory that a program made code in. One in
// memory that was gone before anybody could look is, if another of its name was:
// the program that made it names all of them so.
func (c *Collector) isCode(f *file) bool {
	if f.code {
		return true
	}
	if f.content != nil || f.seen.Executed > 0 || !strings.HasPrefix(f.base, "/"+memoryFile) {
		return false
	}
	code := false
	for n := 1; ; n++ {
		other, ok := c.files[slotOf(f.base, n)]
		switch {
		case !ok:
			return code
		case other.content != nil || other.seen.Executed > 0:
			return false
		}
		code = code || other.code
	}
}

// include adds the executions by processes from outside where they count; it
// reports whether some of them don't.
func (c *Collector) include(f *file) (left bool) {
	for root, s := range f.outside {
		if c.Everybody || c.own[root] {
			f.seen.Executed += s.executed
		} else {
			left = true
		}
	}
	return left
}

// merge joins files with the same path and content, which a monitor may have
// reported under two identities, or whose inode alone was changed. other maps
// the paths that this gives up.
func (c *Collector) merge() (out []*file, other map[string]string) {
	type key struct{ base, sha256 string }
	joined := map[key]*file{}
	other = map[string]string{}
	slots := make([]string, 0, len(c.files))
	for slot := range c.files {
		slots = append(slots, slot)
	}
	sort.Strings(slots) // a path before those with a number
	for _, slot := range slots {
		f := c.files[slot]
		k := key{f.base, f.seen.Sha256}
		old, ok := joined[k]
		if !ok || f.seen.Sha256 == "" {
			joined[k] = f
			out = append(out, f)
			continue
		}
		other[slot] = old.seen.Path
		old.join(f)
	}
	return out, other
}

// join adds what is known of another file to this one.
func (f *file) join(g *file) {
	f.seen.Executed += g.seen.Executed
	f.seen.Mapped = f.seen.Mapped || g.seen.Mapped
	for by := range g.by {
		f.by[by] = true
	}
	for root, s := range g.outside {
		f.share(root).executed += s.executed
	}
}
