package providers

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/reach"
)

const (
	pamStart    = "pam_start"
	pamStartDir = "pam_start_confdir"
	other       = "other" // the service that stands for those without a file (pam.d(5))
)

// maxPAM bounds the files that include each other.
const maxPAM = 256

// pam lists the authentication modules of pam.conf(5) and pam.d(5): of all
// services, or of those whose names are the only ones that the program gives.
// libpam refers to its folders; modules lie in those of them that have them.
func (r *Root) pam(ctx context.Context, config string, seen reach.Reached) []reach.Service {
	config = strings.TrimSuffix(config, "/")
	if base := path.Base(config); base != "pam.d" && base != "pam.conf" {
		return nil
	}
	names, called := seen.Args(pamStart, 0)
	if _, elsewhere := seen.Args(pamStartDir, 0); elsewhere || !called || len(names.Known) == 0 {
		names.Computed = true
	}
	var wanted []string
	if !names.Computed {
		wanted = append(names.Known, other)
	}
	var out []reach.Service
	for _, line := range r.pamModules(ctx, config, wanted) {
		from, module, _ := strings.Cut(line, "\t")
		for _, p := range r.module(ctx, module, seen) {
			out = append(out, reach.Service{Library: p, Config: from})
		}
	}
	return out
}

// module finds a module's file in the folders that are reachable.
func (r *Root) module(ctx context.Context, name string, seen reach.Reached) []string {
	name = strings.ReplaceAll(name, "$ISA/", "")
	if path.IsAbs(name) {
		return []string{name}
	}
	var out []string
	for _, dir := range seen.Paths() {
		if p := path.Join(dir, name); strings.Contains(dir, "security") && r.file(ctx, p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// pamModules lists "FILE\tMODULE" of services, of all when wanted is nil.
func (r *Root) pamModules(ctx context.Context, config string, wanted []string) []string {
	return r.once("pam "+config+" "+strings.Join(wanted, " "), func() []string {
		p := &pamReader{root: r, ctx: ctx, dir: config, seen: map[string]bool{}}
		if path.Base(config) == "pam.conf" {
			for _, line := range lines(r.files.Read(ctx, config)) {
				if f := strings.Fields(line); len(f) > 1 && (wanted == nil || slices.Contains(wanted, strings.ToLower(f[0]))) {
					p.dir = path.Join(path.Dir(config), "pam.d")
					p.line(config, strings.Join(f[1:], " "))
				}
			}
			return p.out
		}
		for _, name := range r.files.Dir(ctx, config, "") {
			if wanted == nil || slices.Contains(wanted, strings.ToLower(name)) {
				p.file(path.Join(config, name))
			}
		}
		return p.out
	})
}

type pamReader struct {
	root *Root
	ctx  context.Context
	dir  string // of relative names
	seen map[string]bool
	out  []string
}

func (p *pamReader) file(name string) {
	if !path.IsAbs(name) {
		name = path.Join(p.dir, name)
	}
	if p.seen[name] || len(p.seen) > maxPAM {
		return
	}
	p.seen[name] = true
	for _, line := range lines(p.root.files.Read(p.ctx, name)) {
		p.line(name, line)
	}
}

// line reads "TYPE CONTROL MODULE ARGUMENTS" or "@include FILE".
func (p *pamReader) line(from, line string) {
	f := strings.Fields(line)
	if len(f) == 2 && f[0] == "@include" {
		p.file(f[1])
		return
	}
	if len(f) < 3 {
		return
	}
	control, rest := f[1], f[2:]
	if strings.HasPrefix(control, "[") { // [value=action ...]
		end := slices.IndexFunc(f[1:], func(s string) bool { return strings.HasSuffix(s, "]") })
		if end < 0 || end+2 >= len(f) {
			return
		}
		rest = f[end+2:]
	}
	switch control {
	case "include", "substack":
		p.file(rest[0])
	default:
		p.out = append(p.out, from+"\t"+rest[0])
	}
}
