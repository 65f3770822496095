package analysis

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/confinehq/confine/pkg/analysis/reach"
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
	// maxBrackets bounds how deep a script can nest: the parser calls itself
	// for each level, and a stack that overflows ends the process.
	maxBrackets = 1 << 16
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
	here := way{from: e.Path}
	if at, err := a.root.Lookup(a.ctx, interp); err == nil {
		a.executes(at.Path, here.to(at.Path, "interpreter"))
	}
	next := Program{Path: interp, Load: p.Load, Origin: p.Origin, Env: p.Env, follows: true}
	a.work = append(a.work, next)
	if path.Base(interp) == "env" {
		if cmd := envCommand(arg); cmd != "" {
			a.command(cmd, p.Env, p.Origin, here)
			interp = cmd
		}
	}
	if a.req.Options.NoFollow {
		return nil
	}
	if len(p.Args) > 1 { // scripts end in exec "$@"
		a.command(p.Args[1], p.Env, OriginStatic, here)
	}
	switch path.Base(interp) {
	case "sh", "bash", "dash", "ash", "ksh", "busybox":
		names, err := commands(text)
		if err != nil {
			a.issue(reach.Issue{Kind: "unreadable-script", Object: e.Path, Watched: true,
				Detail: "programs that it names may be missing: " + err.Error()})
		}
		for _, c := range names {
			a.command(c, p.Env, OriginStatic, here)
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
	words := strings.Trim(string(line), " \t\r")
	if i := strings.IndexAny(words, " \t"); i >= 0 { // as load_script in fs/binfmt_script.c
		return words[:i], strings.TrimSpace(words[i:])
	}
	return words, ""
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

// command adds a program by the name that a shell would look up. w is the way
// to what names it.
func (a *analysis) command(name string, env []string, origin Origin, w way) {
	if strings.Contains(name, "/") {
		if path.IsAbs(name) {
			a.executable(name, env, w, "command")
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
			a.executes(e.Path, w.to(e.Path, "command"))
			if !a.seen[e.Path] {
				a.work = append(a.work, Program{Path: e.Path, Origin: origin, Env: env, follows: true})
			}
			return
		}
	}
}

// commands lists the words of a shell script that can name programs: the first
// word of each command, and the first one behind those that run another.
// What comes before an error in its syntax is in the result all the same.
func commands(text []byte) (names []string, err error) {
	stmts, err := statements(text)
	functions := map[string]bool{}
	for _, st := range stmts {
		syntax.Walk(st, func(n syntax.Node) bool {
			switch n := n.(type) {
			case *syntax.FuncDecl:
				if n.Name != nil {
					functions[n.Name.Value] = true
				}
			case *syntax.CallExpr:
				names = append(names, callNames(n)...)
			}
			return true
		})
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(s string) bool { return functions[s] }), err
}

// statements parses a script. With an error come the statements that are whole:
// the tree of a broken one has holes.
func statements(text []byte) (out []*syntax.Stmt, err error) {
	open := 0
	for _, c := range text {
		if c == '(' || c == '{' || c == '[' {
			open++
		}
	}
	if open > maxBrackets {
		return nil, fmt.Errorf("it has more than %d brackets", maxBrackets)
	}
	defer func() {
		if r := recover(); r != nil { // the parser on some text that is no script
			err = fmt.Errorf("parse it: %v", r)
		}
	}()
	for st, e := range syntax.NewParser().StmtsSeq(bytes.NewReader(text)) {
		if e != nil {
			return out[:max(0, len(out)-1)], e
		}
		if st != nil {
			out = append(out, st)
		}
	}
	return out, nil
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
