package providers

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/reach"
)

const (
	opensslConf  = "openssl.cnf"
	providerLoad = "OSSL_PROVIDER_load"
	providerTry  = "OSSL_PROVIDER_try_load"
	initCrypto   = "OPENSSL_init_crypto" // libcrypto's, of all versions since 1.1
)

// openssl lists OpenSSL's providers and engines (config(5ossl)). libcrypto
// refers to its own folders: that which holds openssl.cnf, and those that hold
// the modules. Providers that the program itself names by constants count, too.
func (r *Root) openssl(ctx context.Context, dir string, env []string, seen reach.Reached) []reach.Service {
	if !seen.Exports(initCrypto) && !opensslPath(dir) {
		return nil // a look at the root may go to a node: only for folders of libcrypto's
	}
	dirs := seen.PathsOf(initCrypto)
	for _, p := range seen.Paths() {
		if opensslPath(p) && !slices.Contains(dirs, p) {
			dirs = append(dirs, p)
		}
	}
	var configs []string
	if c := variable(env, "OPENSSL_CONF"); c != "" {
		configs = []string{c}
	} else {
		for _, d := range dirs {
			configs = append(configs, path.Join(d, opensslConf))
		}
	}
	dirs = append(dirs, variable(env, "OPENSSL_MODULES"), variable(env, "OPENSSL_ENGINES"))
	var out []reach.Service
	for _, c := range configs {
		for _, name := range r.opensslModules(ctx, c) {
			out = append(out, r.opensslModule(ctx, dirs, name, c)...)
		}
	}
	for _, f := range []string{providerLoad, providerTry} {
		names, _ := seen.Args(f, 1)
		for _, name := range names.Known {
			out = append(out, r.opensslModule(ctx, dirs, name, f)...)
		}
	}
	return out
}

// opensslPath reports whether a path can be a folder of OpenSSL's by its name,
// as where it is linked into the program and exports nothing.
func opensslPath(p string) bool {
	return strings.Contains(p, "ssl") || strings.Contains(p, "engines")
}

// opensslModule finds a module by its path, or in folders.
func (r *Root) opensslModule(ctx context.Context, dirs []string, name, config string) []reach.Service {
	if path.IsAbs(name) {
		return []reach.Service{{Library: name, Config: config}}
	}
	if !strings.HasSuffix(name, ".so") {
		name += ".so"
	}
	var out []reach.Service
	for _, d := range dirs {
		if p := path.Join(d, name); path.IsAbs(p) && r.file(ctx, p) {
			out = append(out, reach.Service{Library: p, Config: config})
		}
	}
	return out
}

// opensslModules lists the names of providers and engines, or their paths, that
// a configuration holds.
func (r *Root) opensslModules(ctx context.Context, config string) []string {
	if !path.IsAbs(config) || !r.file(ctx, config) {
		return nil
	}
	return r.once("openssl "+config, func() []string {
		s := sections{r, ctx, map[string]map[string]string{}, 0}
		s.read(config, "default")
		return s.modules()
	})
}

// sections are the values of a configuration; key: the section's name, and that
// of the value.
type sections struct {
	root *Root
	ctx  context.Context
	m    map[string]map[string]string
	n    int
}

// maxIncluded bounds the files that include each other.
const maxIncluded = 64

func (s *sections) read(file, section string) string {
	if s.n++; s.n > maxIncluded {
		return section
	}
	for _, line := range lines(s.root.files.Read(s.ctx, file)) {
		if name, ok := strings.CutPrefix(line, "["); ok {
			name, _, _ = strings.Cut(name, "]")
			section = strings.TrimSpace(name)
			continue
		}
		if p, ok := strings.CutPrefix(line, ".include"); ok {
			section = s.include(strings.Trim(strings.TrimSpace(strings.TrimLeft(p, " \t=")), `"`), file, section)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		if s.m[section] == nil {
			s.m[section] = map[string]string{}
		}
		s.m[section][strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
	}
	return section
}

func (s *sections) include(p, from, section string) string {
	if !path.IsAbs(p) {
		p = path.Join(path.Dir(from), p)
	}
	if s.root.files.Read(s.ctx, p) != nil {
		return s.read(p, section)
	}
	for _, name := range s.root.files.Dir(s.ctx, p, "") {
		if strings.HasSuffix(name, ".cnf") || strings.HasSuffix(name, ".conf") {
			section = s.read(path.Join(p, name), section)
		}
	}
	return section
}

// modules follows every section that names providers or engines: which one the
// program's own section is, the program says.
func (s *sections) modules() []string {
	var out []string
	for _, values := range s.m {
		for _, kind := range []string{"providers", "engines"} {
			for name, sub := range s.m[values[kind]] {
				module := name
				for _, key := range []string{"module", "dynamic_path", "engine_id", "identity"} {
					if v := s.m[sub][key]; v != "" {
						module = v
						break
					}
				}
				out = append(out, module)
			}
		}
	}
	return out
}
