// Package providers reads the configuration of a root file system that makes
// programs load libraries which no code names: name services, character set
// conversions, authentication modules, and OpenSSL's providers and engines.
//
// What is configured counts for a program when code of it that reads the
// configuration is reachable: that code refers to the configuration's path,
// which is found there and isn't known here, but for nsswitch.conf and the names
// that files have inside of a folder.
//
// Everything here parses files from a container: they are bounded by
// link.System.Read, and no input makes it fail.
package providers

import (
	"context"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/rootfs"
)

// Files reads the configuration of a root; *link.System does.
type Files interface {
	// Read returns a file's content, nil when it can't be read.
	Read(ctx context.Context, path string) []byte
	// Dir lists the names in a folder that begin with a prefix.
	Dir(ctx context.Context, dir, prefix string) []string
}

// Root finds what one root configures for one program after the other.
type Root struct {
	root  rootfs.Root
	files Files
	kept  map[string][]string // key: what was read; parsed once
	// isFile keeps what was looked up; key: path.
	isFile map[string]bool
	gconvs map[string][]conversion // key: the folder that holds the configuration
}

// New returns the configuration of a root.
func New(root rootfs.Root, files Files) *Root {
	return &Root{root: root, files: files, kept: map[string][]string{}, isFile: map[string]bool{}, gconvs: map[string][]conversion{}}
}

// Watch lists the functions whose callers decide what is loaded.
func Watch() []string { return []string{iconvOpen, pamStart, pamStartDir, providerLoad, providerTry} }

// Questions are about the arguments of these functions that name what is loaded.
func Questions() map[string][]objects.Question {
	first, second := objects.Question{Arg: 0, Name: true}, objects.Question{Arg: 1, Name: true}
	return map[string][]objects.Question{
		iconvOpen: {first, second}, pamStart: {first}, pamStartDir: {first}, providerLoad: {second}, providerTry: {second},
	}
}

// Services returns what programs with an environment load.
func (r *Root) Services(env []string) reach.ServicesFunc {
	return func(ctx context.Context, path string, seen reach.Reached) []reach.Service {
		if path == nsswitch {
			return r.nss(ctx)
		}
		out := r.gconv(ctx, path, env, seen)
		out = append(out, r.pam(ctx, path, seen)...)
		return append(out, r.openssl(ctx, path, env, seen)...)
	}
}

// file reports whether there is a regular file at a path.
func (r *Root) file(ctx context.Context, path string) bool {
	is, ok := r.isFile[path]
	if !ok {
		e, err := r.root.Lookup(ctx, path)
		is = err == nil && e.Kind == rootfs.KindFile
		r.isFile[path] = is
	}
	return is
}

// once parses something the first time that it is asked for.
func (r *Root) once(key string, parse func() []string) []string {
	out, ok := r.kept[key]
	if !ok {
		out = parse()
		slices.Sort(out)
		out = slices.Compact(out)
		r.kept[key] = out
	}
	return out
}

// variable returns the value of a variable of an environment.
func variable(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// lines yields the lines of a file without comments, those that end in a
// backslash joined with the next.
func lines(text []byte) []string {
	var out []string
	joined := ""
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimRight(line, "\r\n"), "#")
		if l, ok := strings.CutSuffix(line, "\\"); ok {
			joined += l + " "
			continue
		}
		if line = strings.TrimSpace(joined + line); line != "" {
			out = append(out, line)
		}
		joined = ""
	}
	if joined = strings.TrimSpace(joined); joined != "" {
		out = append(out, joined)
	}
	return out
}
