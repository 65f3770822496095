package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

//go:embed programs.txtar
var builtin []byte

// program is one program with its load, as a file of a txtar archive states it:
// lines "# key: value", then the shell script that is its load.
//
//	kind: WORDS          what it stands for, for the table
//	packages: NAME...    of Debian
//	needs: COMMAND...    programs that no package of Debian brings; without them it is left out
//	setup: COMMAND       before it is traced; may be given several times
//	build: COMMAND       as setup; $SRC holds the files whose names begin with "src/"
//	run: COMMAND         what is traced, by sh -c "exec COMMAND"
//	limit: SECONDS       after which it is ended (default 60)
//
// All commands run in a folder of its own, which is $DIR. The load runs while
// the program does; without one, the program is waited for.
type program struct {
	name, kind      string
	packages, needs []string
	setup           []string
	run, load       string
	limit           time.Duration
}

// parsePrograms reads an archive; sources are its files below "src/".
func parsePrograms(data []byte) (list []program, sources []txtar.File, err error) {
	for _, f := range txtar.Parse(data).Files {
		if name, ok := strings.CutPrefix(f.Name, "src/"); ok {
			sources = append(sources, txtar.File{Name: name, Data: f.Data})
			continue
		}
		p, err := parseProgram(f)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, p)
	}
	return list, sources, nil
}

func parseProgram(f txtar.File) (program, error) {
	p := program{name: f.Name, limit: 60 * time.Second}
	var load strings.Builder
	for line := range strings.Lines(string(f.Data)) {
		text, ok := strings.CutPrefix(line, "# ")
		if !ok {
			load.WriteString(line)
			continue
		}
		key, value, _ := strings.Cut(strings.TrimSpace(text), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "kind":
			p.kind = value
		case "packages":
			p.packages = append(p.packages, strings.Fields(value)...)
		case "needs":
			p.needs = append(p.needs, strings.Fields(value)...)
		case "setup", "build":
			p.setup = append(p.setup, value)
		case "run":
			p.run = value
		case "limit":
			d, err := time.ParseDuration(value + "s")
			if err != nil {
				return p, fmt.Errorf("%s: limit %q is no number of seconds", f.Name, value)
			}
			p.limit = d
		default:
			return p, fmt.Errorf("%s: unknown key %q", f.Name, key)
		}
	}
	p.load = strings.TrimSpace(load.String())
	if p.run == "" {
		return p, fmt.Errorf("%s: nothing to run", f.Name)
	}
	return p, nil
}

// writeSources puts files into a folder.
func writeSources(dir string, files []txtar.File) error {
	for _, f := range files {
		p := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, f.Data, 0o755); err != nil {
			return err
		}
	}
	return nil
}
