package providers

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/reach"
)

const (
	iconvOpen = "iconv_open"
	modules   = "gconv-modules"
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
	if r.files.Read(ctx, config) == nil && len(r.files.Dir(ctx, dir, modules)) == 0 {
		return nil
	}
	found := r.once("gconv "+dir, func() []string {
		var list []string
		for _, line := range r.gconvLines(ctx, dir) {
			if f := strings.Fields(line); len(f) >= 4 && f[0] == "module" {
				list = append(list, canonical(f[1])+"\t"+canonical(f[2])+"\t"+f[3])
			}
		}
		return list
	})
	wanted := map[string]bool{}
	for _, s := range sets {
		wanted[canonical(s)] = true
	}
	if !all {
		r.aliases(ctx, dir, wanted)
	}
	var out []reach.Service
	for _, line := range found {
		f := strings.Split(line, "\t")
		if all || wanted[f[0]] || wanted[f[1]] {
			file := f[2]
			if !path.IsAbs(file) {
				file = dir + "/" + file
			}
			if !strings.HasSuffix(file, ".so") {
				file += ".so"
			}
			out = append(out, reach.Service{Library: file, Config: config, Group: dir})
		}
	}
	return out
}

func (r *Root) gconvLines(ctx context.Context, dir string) []string {
	out := lines(r.files.Read(ctx, dir+"/"+modules))
	for _, name := range r.files.Dir(ctx, dir+"/"+modules+".d", "") {
		if strings.HasSuffix(name, ".conf") {
			out = append(out, lines(r.files.Read(ctx, dir+"/"+modules+".d/"+name))...)
		}
	}
	return out
}

// aliases adds what names stand for, and sets on the way to others: a module
// can convert in two steps.
func (r *Root) aliases(ctx context.Context, dir string, wanted map[string]bool) {
	list := r.once("gconv aliases "+dir, func() []string {
		var list []string
		for _, line := range r.gconvLines(ctx, dir) {
			switch f := strings.Fields(line); {
			case len(f) >= 3 && f[0] == "alias":
				list = append(list, canonical(f[1])+"\t"+canonical(f[2]))
			case len(f) >= 4 && f[0] == "module" && !slices.Contains(f[1:3], "INTERNAL"):
				list = append(list, canonical(f[1])+"\t"+canonical(f[2]))
			}
		}
		return list
	})
	for range 4 { // aliases of aliases
		for _, line := range list {
			from, to, _ := strings.Cut(line, "\t")
			if wanted[from] && to != "INTERNAL" {
				wanted[to] = true
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
