package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/rootfs"
)

// row is one executed image held against the analysis.
type row struct {
	Program string   `json:"program"` // of the archive, the first that executed it
	Kind    string   `json:"kind,omitempty"`
	Image   string   `json:"image"`
	Made    int      `json:"made"`
	Allowed int      `json:"allowed"`
	Missing []string `json:"missing,omitempty"`
	// MissingArgs are the arguments that were used and aren't allowed, Compared
	// is the number of different ones that conditions were held against, and
	// Narrowed the number of calls with conditions.
	MissingArgs []string `json:"missing_args,omitempty"`
	Compared    int      `json:"compared_args"`
	Narrowed    int      `json:"narrowed"`
	// Unresolved is set when a number is unknown, so that every call is allowed.
	Unresolved bool    `json:"unresolved,omitempty"`
	F1         float64 `json:"f1"`
	// Seconds of the analysis, nothing cached.
	Seconds float64 `json:"seconds"`
	// Mapped is the number of objects that it mapped, Unforeseen are those of
	// them that the analysis doesn't find unless it is told.
	Mapped     int      `json:"mapped"`
	Unforeseen []string `json:"unforeseen,omitempty"`
	Incomplete []string `json:"incomplete,omitempty"` // kinds, without telling it what was mapped
	Error      string   `json:"error,omitempty"`
}

// compare analyses one image and holds what it did against the answer.
func compare(ctx context.Context, path string, seen *image) row {
	r := row{Image: path, Made: len(seen.made)}
	file := interpreter(path)
	root, err := rootfs.NewDir("/")
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer root.Close()
	analyze := func(load []string) (*analysis.Result, error) {
		return analysis.Analyze(ctx, analysis.Request{
			Root:     root,
			Programs: []analysis.Program{{Path: file, Load: load}},
			Options:  analysis.Options{NoFollow: load != nil, Parallel: 1},
		})
	}
	began := time.Now()
	told, err := analyze(slices.Sorted(maps.Keys(seen.mapped)))
	r.Seconds = time.Since(began).Seconds()
	if err != nil {
		r.Error = err.Error()
		return r
	}
	allowed := map[string]bool{}
	for _, s := range told.Syscalls {
		allowed[s.Name] = true
	}
	hits := 0
	for _, name := range slices.Sorted(maps.Keys(seen.made)) {
		if allowed[name] {
			hits++
		} else {
			r.Missing = append(r.Missing, name)
		}
	}
	r.Allowed = len(allowed)
	r.Unresolved = slices.ContainsFunc(told.Incomplete, func(i analysis.Issue) bool { return i.Kind == "unresolved-number" })
	if r.Made+r.Allowed > 0 {
		r.F1 = 2 * float64(hits) / float64(r.Made+r.Allowed)
	}
	r.arguments(seen, told)
	r.objects(ctx, root, seen, file)
	return r
}

// objects holds the files that were mapped against those that the analysis
// finds by itself.
func (r *row) objects(ctx context.Context, root rootfs.Root, seen *image, file string) {
	r.Mapped = len(seen.mapped)
	alone, err := analysis.Analyze(ctx, analysis.Request{
		Root: root, Programs: []analysis.Program{{Path: file}}, Options: analysis.Options{Parallel: 1, NoFollow: true},
	})
	if err != nil {
		return
	}
	found := map[string]bool{}
	for _, o := range alone.Objects {
		found[o.Path] = true
	}
	for _, m := range slices.Sorted(maps.Keys(seen.mapped)) {
		if real, err := filepath.EvalSymlinks(m); err == nil && !found[real] {
			r.Unforeseen = append(r.Unforeseen, m)
		}
	}
	for _, i := range alone.Incomplete {
		if !slices.Contains(r.Incomplete, i.Kind) {
			r.Incomplete = append(r.Incomplete, i.Kind)
		}
	}
}

// interpreter is the program that runs an image: its own file, or that of a
// script.
func interpreter(path string) string {
	for range 4 {
		f, err := os.Open(path)
		if err != nil {
			return path
		}
		head := make([]byte, 256)
		n, _ := f.Read(head)
		f.Close()
		text, ok := strings.CutPrefix(string(head[:n]), "#!")
		if !ok {
			return path
		}
		line, _, _ := strings.Cut(text, "\n")
		words := strings.Fields(line)
		if len(words) == 0 {
			return path
		}
		if path, err = filepath.EvalSymlinks(words[0]); err != nil {
			return words[0]
		}
	}
	return path
}
