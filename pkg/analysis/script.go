package analysis

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/confinehq/confine/pkg/rootfs"
)

// Limits on scripts.
const (
	// maxLine is what the kernel reads of a "#!" line, in bytes
	// (BINPRM_BUF_SIZE, include/uapi/linux/binfmts.h).
	maxLine = 256
	// maxScript is the size in bytes up to which a script is searched for
	// commands.
	maxScript = 1 << 20
)

// defaultPath is where commands are looked for without PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// script analyses the interpreter of a script, and adds the programs that a
// shell script names.
func (a *analysis) script(p Program, e rootfs.Entry) error {
	f, err := a.root.Open(a.ctx, e.Path)
	if err != nil {
		return fmt.Errorf("open %s: %w", e.Path, err)
	}
	defer f.Close()
	text := make([]byte, min(f.Size(), maxScript))
	n, err := f.ReadAt(text, 0)
	text = text[:n]
	if n == 0 && err != nil {
		return fmt.Errorf("read %s: %w", e.Path, err)
	}
	interp, arg := shebang(text)
	if interp == "" {
		// Shells run such a file themselves; the kernel refuses it.
		if bytes.IndexByte(text, 0) >= 0 || p.Origin == OriginStatic {
			return fmt.Errorf("analyse %s: it is neither an ELF file nor a script", e.Path)
		}
		interp = "/bin/sh"
	}
	a.result.Entrypoints = append(a.result.Entrypoints, e.Path)
	next := Program{Path: interp, Load: p.Load, Origin: p.Origin, Env: p.Env}
	a.work = append(a.work, next)
	if path.Base(interp) == "env" {
		if cmd := envCommand(arg); cmd != "" {
			a.command(cmd, p.Env, p.Origin)
			interp = cmd
		}
	}
	if a.req.Options.NoFollow {
		return nil
	}
	if len(p.Args) > 1 { // scripts end in exec "$@"
		a.command(p.Args[1], p.Env, OriginStatic)
	}
	switch path.Base(interp) {
	case "sh", "bash", "dash", "ash", "ksh", "busybox":
		for _, c := range commands(text) {
			a.command(c, p.Env, OriginStatic)
		}
	}
	return nil
}

// shebang returns the interpreter of a script and its one argument.
func shebang(text []byte) (interp, arg string) {
	line, ok := bytes.CutPrefix(text, []byte("#!"))
	if !ok {
		return "", ""
	}
	line = line[:min(len(line), maxLine-2)]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	interp, arg, _ = strings.Cut(strings.Trim(string(line), " \t\r"), " ")
	return interp, strings.TrimSpace(arg)
}

// envCommand is the command in the argument of env(1).
func envCommand(arg string) string {
	for _, w := range strings.Fields(arg) {
		if w != "-S" && !strings.Contains(w, "=") && !strings.HasPrefix(w, "-") {
			return w
		}
	}
	return ""
}

// command adds a program by the name that a shell would look up.
func (a *analysis) command(name string, env []string, origin Origin) {
	if strings.Contains(name, "/") {
		if path.IsAbs(name) {
			a.executable(name, env)
		}
		return
	}
	dirs := defaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			dirs = v
		}
	}
	for d := range strings.SplitSeq(dirs, ":") {
		if !path.IsAbs(d) {
			continue
		}
		p := path.Join(d, name)
		e, err := a.root.Lookup(a.ctx, p)
		if err == nil && e.Kind == rootfs.KindFile && e.Mode&0o111 != 0 {
			if !a.seen[e.Path] {
				a.work = append(a.work, Program{Path: e.Path, Origin: origin, Env: env})
			}
			return
		}
	}
}

// commands lists the words of a shell script that can name programs: the first
// word of each command, and the first one behind those that run another.
func commands(text []byte) []string {
	file, err := syntax.NewParser().Parse(bytes.NewReader(text), "")
	if err != nil && file == nil {
		return nil
	}
	functions := map[string]bool{}
	var out []string
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.FuncDecl:
			functions[n.Name.Value] = true
		case *syntax.CallExpr:
			out = append(out, callNames(n)...)
		}
		return true
	})
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(s string) bool { return functions[s] })
}

// runners run the command that follows among their arguments.
var runners = []string{"exec", "command", "env", "nohup", "nice", "setsid", "timeout", "xargs", "su-exec", "gosu", "setpriv", "chroot", "time", "tini", "dumb-init", "busybox"}

func callNames(c *syntax.CallExpr) []string {
	var out []string
	all := false
	for i, w := range c.Args {
		lit := w.Lit()
		if lit == "" {
			if !all {
				break
			}
			continue
		}
		if i == 0 || all && !strings.HasPrefix(lit, "-") {
			out = append(out, lit)
		}
		if i == 0 {
			if all = slices.Contains(runners, path.Base(lit)); !all {
				break
			}
		}
	}
	return out
}
