package main

import (
	"context"
	"debug/elf"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/confinehq/confine/internal/factsdir"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/reach"
	"github.com/confinehq/confine/pkg/rootfs"
	"github.com/confinehq/confine/pkg/syscalls"
)

//go:embed plugin/recorder.c
var recorder []byte

// covered is one executed image held against the analysis, block by block.
type covered struct {
	Program string `json:"program"`
	Image   string `json:"image"`
	Blocks  int    `json:"blocks"`
	Calls   int    `json:"calls"`
	// Outside is the number of blocks in no file: what was compiled at run time.
	Outside int `json:"outside,omitempty"`
	// Loaded are the objects that the analysis had to be told.
	Loaded []string `json:"loaded,omitempty"`
	// Unresolved is set when every call is allowed.
	Unresolved bool     `json:"unresolved,omitempty"`
	Missing    []string `json:"missing,omitempty"`
	// Left are files that it executed and that nothing was recorded of.
	Left  []string `json:"left,omitempty"`
	Error string   `json:"error,omitempty"`
}

// coverage runs programs under qemu-user and prints what the analysis lacks of
// what they executed.
func (r *runner) coverage(ctx context.Context, list []program, out io.Writer, format string) error {
	if err := r.packages(ctx, []string{"qemu-user", "gcc", "libc6-dev"}); err != nil {
		return err
	}
	plugin := filepath.Join(r.src, "recorder.so")
	if err := compile(ctx, plugin); err != nil {
		return err
	}
	cache, err := factsdir.Open(filepath.Join(r.src, "facts"))
	if err != nil {
		return err
	}
	defer cache.Close()
	missing := 0
	for _, p := range list {
		fmt.Fprintf(os.Stderr, "running %s\n", p.name)
		rows, err := r.cover(ctx, p, plugin, cache)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(out, "%s: %v\n", p.name, err)
		}
		for _, row := range rows {
			if !row.Unresolved { // nothing is lost where every call is allowed
				missing += len(row.Missing)
			}
			if err := row.write(out, format); err != nil {
				return err
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d blocks, calls or arguments that were executed are missing", missing)
	}
	return nil
}

// compile makes the plugin.
func compile(ctx context.Context, to string) error {
	source := strings.TrimSuffix(to, ".so") + ".c"
	if err := os.WriteFile(source, recorder, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Dir(to), 0o755); err != nil { // for programs that drop their user
		return err
	}
	out, err := exec.CommandContext(ctx, "gcc", "-O2", "-shared", "-fPIC", "-o", to, source).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compile the plugin: %w\n%s", err, tail(out))
	}
	return nil
}

// cover runs one program and holds each image that it executed against the
// analysis.
func (r *runner) cover(ctx context.Context, p program, plugin string, cache analysis.FactsCache) (rows []covered, err error) {
	err = r.run(ctx, p, func(dir, logs string) error {
		if err := errors.Join(os.Chmod(logs, 0o777), writeMasks(logs)); err != nil {
			return err
		}
		ran := r.watched(ctx, dir, p, emulated(logs, plugin))
		all, err := readRecords(logs)
		for _, e := range all {
			row := e.compare(ctx, cache)
			row.Program = p.name
			rows = append(rows, row)
		}
		return errors.Join(ran, err)
	})
	return rows, err
}

// emulated runs programs under qemu-user, as the processor that has most.
func emulated(logs, plugin string) watcher {
	shell, err := exec.LookPath("sh")
	if err != nil {
		shell = "/bin/sh"
	}
	options := fmt.Sprintf("%s,dir=%s,plugin=%s,cpu=max,program=%s", plugin, logs, plugin, shell)
	return watcher{
		command: []string{"qemu-x86_64", "-cpu", "max", "-plugin", options, "-0", "sh", shell},
		start:   8 * time.Second,
		end: func(_ int, sig syscall.Signal) {
			list, _ := filepath.Glob("/proc/[0-9]*/maps")
			for _, f := range list {
				if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), logs) {
					if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
						_ = syscall.Kill(pid, sig)
					}
				}
			}
		},
	}
}

// writeMasks writes for each table of calls which arguments are to be recorded.
func writeMasks(dir string) error {
	for target, arch := range map[string]syscalls.Arch{"x86_64": syscalls.AMD64, "aarch64": syscalls.ARM64} {
		var masks [1024]byte
		for _, c := range syscalls.All(arch) {
			for _, i := range syscalls.Chooses(c.Name) {
				masks[c.Nr] |= 1 << i
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "masks."+target), masks[:], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compare analyses an image and holds what was executed against the answer. The
// analysis is told only of what it doesn't find by itself.
func (e *execution) compare(ctx context.Context, cache analysis.FactsCache) covered {
	row := covered{Image: e.image, Blocks: len(e.blocks), Calls: len(e.calls), Left: slices.Sorted(maps.Keys(e.left))}
	a, err := ask(ctx, e.image, nil, cache)
	if err == nil {
		if row.Loaded = e.unknown(a); len(row.Loaded) > 0 {
			a, err = ask(ctx, e.image, row.Loaded, cache)
		}
	}
	if err != nil {
		row.Error = err.Error()
		return row
	}
	row.Unresolved = a.unresolved
	row.Missing, row.Outside = a.hold(e)
	return row
}

// unknown lists the objects that were executed and that an answer lacks.
func (e *execution) unknown(a *answer) []string {
	found := map[string]bool{}
	for b := range e.blocks {
		if b.path == "" || a.objects[b.path] != nil {
			continue
		}
		if _, err := os.Stat(b.path); err == nil {
			found[b.path] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// ask analyses a program.
func ask(ctx context.Context, image string, load []string, cache analysis.FactsCache) (*answer, error) {
	root, err := rootfs.NewDir("/")
	if err != nil {
		return nil, err
	}
	defer root.Close()
	a := &answer{objects: map[string]*code{}, allowed: map[string]bool{}, conditions: map[argument]map[uint32]bool{}}
	reached := map[string]map[uint64]bool{}
	told, err := analysis.Analyze(ctx, analysis.Request{
		Root:     root,
		Programs: []analysis.Program{{Path: image, Load: load}},
		Options: analysis.Options{
			NoFollow: true, Parallel: 1, Cache: cache,
			Graph: func(_ string, t *reach.Trail) error {
				t.Functions(func(object string, start uint64) {
					if reached[object] == nil {
						reached[object] = map[uint64]bool{}
					}
					reached[object][start] = true
				})
				return nil
			},
			Facts: func(path string, f *facts.Facts) error {
				a.objects[path] = &code{facts: f}
				return nil
			},
		},
	})
	if err != nil {
		return nil, err
	}
	for path, o := range a.objects {
		o.reached = reached[path]
		if o.segments, err = executableSegments(path); err != nil {
			return nil, err
		}
	}
	a.takeIn(told)
	return a, nil
}

// takeIn adds the calls of a result.
func (a *answer) takeIn(told *analysis.Result) {
	a.arch, _ = syscalls.ForPlatform(told.Platform)
	if told.Compat {
		a.arch = syscalls.I386
	}
	a.unresolved = len(told.Unresolved) > 0
	for _, s := range told.Syscalls {
		a.allowed[s.Name] = true
		for _, c := range s.Args {
			k := argument{s.Name, int(c.Index)}
			if a.conditions[k] == nil {
				a.conditions[k] = map[uint32]bool{}
			}
			a.conditions[k][uint32(c.ValueTwo)] = true
		}
	}
}

func executableSegments(path string) ([]segment, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []segment
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_X == 0 {
			continue
		}
		code := make([]byte, p.Filesz)
		if _, err := p.ReadAt(code, 0); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		out = append(out, segment{p.Vaddr, p.Off, code})
	}
	return out, nil
}

func (row *covered) write(out io.Writer, format string) error {
	if format == "json" {
		return json.NewEncoder(out).Encode(row)
	}
	wide := ""
	if row.Unresolved {
		wide = ", every call is allowed"
	}
	fmt.Fprintf(out, "%s: %s: %d blocks (%d outside of files), %d calls, %d objects told%s: %d missing\n",
		row.Program, row.Image, row.Blocks, row.Outside, row.Calls, len(row.Loaded), wide, len(row.Missing))
	if row.Error != "" {
		fmt.Fprintln(out, "  error:", row.Error)
	}
	for _, m := range row.Missing {
		fmt.Fprintln(out, " ", m)
	}
	for _, l := range row.Left {
		fmt.Fprintln(out, "  not recorded:", l)
	}
	return nil
}
