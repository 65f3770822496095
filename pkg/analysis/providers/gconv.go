package providers

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/reach"
)

const (
	iconvOpen = "iconv_open"
	modules   = "gconv-modules"
	internal  = "INTERNAL" // the set that all conversions go through
)

// gconv lists the modules that convert character sets: glibc's folder of them
// holds the file gconv-modules, and further ones in gconv-modules.d, whose lines
// "module FROM TO FILE COST" name them and whose lines "alias NAME SET" give
// sets more names (iconvconfig(8)); its cache is made from these.
//
// They are loaded for the sets that a program names, and for that of its
// locale. So all count where a program can name any, and those of the named ones
// where it names constants.
func (r *Root) gconv(ctx context.Context, dir string, env []string, seen reach.Reached) []reach.Service {
	dir = strings.TrimSuffix(dir, "/")
	if path.Base(dir) == modules+".cache" {
		dir = path.Dir(dir)
	}
	if path.Base(dir) != "gconv" || !r.configured(ctx, dir) {
		return nil
	}
	sets, all := sets(env, seen)
	if !all && len(sets) == 0 {
		return nil
	}
	var out []reach.Service
	for _, d := range append([]string{dir}, strings.Split(variable(env, "GCONV_PATH"), ":")...) {
		out = append(out, r.modules(ctx, strings.TrimSuffix(d, "/"), sets, all)...)
	}
	return out
}

func (r *Root) configured(ctx context.Context, dir string) bool {
	return len(r.files.Dir(ctx, dir, modules)) > 0
}

// sets returns the sets that a program converts, or whether it can be any.
func sets(env []string, seen reach.Reached) (names []string, all bool) {
	for arg := range 2 {
		n, called := seen.Args(iconvOpen, arg)
		if called && n.Computed {
			return nil, true
		}
		names = append(names, n.Known...)
	}
	for _, v := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		locale := variable(env, v)
		if _, set, ok := strings.Cut(locale, "."); ok {
			set, _, _ = strings.Cut(set, "@")
			names = append(names, set)
		} else if locale != "" && locale != "C" && locale != "POSIX" {
			return nil, true // a set that the locale's own files name
		}
	}
	return names, seen.Converts()
}

// modules lists the modules of one folder.
func (r *Root) modules(ctx context.Context, dir string, sets []string, all bool) []reach.Service {
	if dir == "" || !path.IsAbs(dir) {
		return nil
	}
	config := dir + "/" + modules
	if len(r.files.Dir(ctx, dir, modules)) == 0 && r.files.Read(ctx, config) == nil {
		return nil
	}
	conversions := r.conversions(ctx, dir)
	wanted := map[string]bool{}
	for _, s := range sets {
		wanted[canonical(s)] = true
	}
	if !all {
		standFor(conversions, wanted)
	}
	var found []conversion
	for _, c := range conversions {
		if c.file != "" && (all || wanted[c.from] || wanted[c.to]) {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(x, y conversion) int {
		return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to), cmp.Compare(x.file, y.file))
	})
	var out []reach.Service
	for _, c := range slices.Compact(found) {
		file := c.file
		if !path.IsAbs(file) {
			file = dir + "/" + file
		}
		if !strings.HasSuffix(file, ".so") {
			file += ".so"
		}
		out = append(out, reach.Service{Library: file, Config: config, Group: dir})
	}
	return out
}

// conversion is a line of a configuration: a module's, or an alias, which has no
// file.
type conversion struct{ from, to, file string }

// conversions reads the configuration of one folder, once.
func (r *Root) conversions(ctx context.Context, dir string) []conversion {
	out, ok := r.gconvs[dir]
	if ok {
		return out
	}
	add := func(file string) {
		for _, line := range lines(r.files.Read(ctx, file)) {
			kind, from, to, file := words(line)
			switch {
			case kind == "alias" && to != "":
				out = append(out, conversion{from: canonical(from), to: canonical(to)})
			case kind == "module" && file != "":
				out = append(out, conversion{canonical(from), canonical(to), file})
			}
		}
	}
	add(dir + "/" + modules)
	for _, name := range r.files.Dir(ctx, dir+"/"+modules+".d", "") {
		if strings.HasSuffix(name, ".conf") {
			add(dir + "/" + modules + ".d/" + name)
		}
	}
	r.gconvs[dir] = out
	return out
}

// words are the first four of a line, "" for those that it hasn't.
func words(line string) (kind, from, to, file string) {
	var w [4]string
	n := 0
	for word := range strings.FieldsSeq(line) {
		if n == len(w) {
			break
		}
		w[n] = word
		n++
	}
	return w[0], w[1], w[2], w[3]
}

// standFor adds what names stand for, and sets on the way to others: a module
// can convert in two steps.
func standFor(list []conversion, wanted map[string]bool) {
	for more := true; more; {
		more = false
		for _, c := range list {
			if wanted[c.from] && c.to != internal && (c.file == "" || c.from != internal) && !wanted[c.to] {
				wanted[c.to], more = true, true
			}
		}
	}
}

// canonical is the name of a set without what follows it and with its letters
// upper case (gconv_open.c).
func canonical(set string) string {
	set, _, _ = strings.Cut(set, "/")
	return strings.ToUpper(set)
}
