package server

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/rootfs"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// observation is what a node saw, after it was checked.
type observation struct {
	arch  syscalls.Arch
	image *confinev1.ImageInfo
	run   *confinev1.Run
	// files are those whose paths can be named, sorted by path.
	files   []*confinev1.FileSeen
	runtime *confinev1.Runtime
	monitor string
	// replayed is true when the run was read from a trace.
	replayed   bool
	incomplete []*confinev1.Incomplete
	// notes are what the run rests on.
	notes []*confinev1.Incomplete
}

// checkObservation accepts what can be used, and says in incomplete what
// can't.
func checkObservation(o *confinev1.Observation) (*observation, error) {
	arch, ok := syscalls.ForPlatform(o.GetImage().GetPlatform())
	switch {
	case o.GetImage() == nil || o.GetRun() == nil:
		return nil, errors.New("it holds no image or no run")
	case !ok:
		return nil, fmt.Errorf("platform %q has no table of system calls", clean(o.GetImage().GetPlatform(), 64))
	case len(o.GetFiles()) > maxItems || len(o.GetIncomplete()) > maxItems || len(o.GetRun().GetRecorded()) > maxItems:
		return nil, fmt.Errorf("it lists more than %d files", maxItems)
	}
	if arch == syscalls.I386 {
		arch = syscalls.AMD64 // whose kernels run it: its calls are the compat ones
	}
	out := &observation{
		arch: arch, image: o.GetImage(), run: checkRun(o.GetRun()), runtime: o.GetRuntime(),
		monitor: clean(o.GetMonitor(), 64),
	}
	for _, i := range o.GetIncomplete() {
		out.lack(cleanKind(i.GetKind()), i.GetObject(), i.GetDetail())
	}
	for _, i := range o.GetNotes()[:min(len(o.GetNotes()), maxItems)] {
		out.notes = append(out.notes, &confinev1.Incomplete{Kind: cleanKind(i.GetKind()), Object: clean(i.GetObject(), maxPath), Detail: clean(i.GetDetail(), maxText)})
	}
	for _, f := range o.GetFiles() {
		out.addFile(f)
	}
	slices.SortFunc(out.files, func(a, b *confinev1.FileSeen) int { return strings.Compare(a.GetPath(), b.GetPath()) })
	out.files = slices.CompactFunc(out.files, func(a, b *confinev1.FileSeen) bool {
		return a.GetPath() == b.GetPath() && a.GetSha256() == b.GetSha256() && a.GetKind() == b.GetKind()
	})
	if n := out.run.GetLost(); n > 0 && !out.lacks("lost-events") {
		out.lack("lost-events", "", fmt.Sprintf("the monitor lost %d events, so that files may be missing; run again when the node is less busy", n))
	}
	return out, nil
}

// lack notes something that is missing.
func (o *observation) lack(kind, object, detail string) {
	o.incomplete = append(o.incomplete, &confinev1.Incomplete{Kind: kind, Object: clean(object, maxPath), Detail: clean(detail, maxText)})
}

func (o *observation) lacks(kind string) bool {
	return slices.ContainsFunc(o.incomplete, func(i *confinev1.Incomplete) bool { return i.GetKind() == kind })
}

func checkRun(run *confinev1.Run) *confinev1.Run {
	run.SettledBy = clean(run.GetSettledBy(), 512)
	run.Output = cleanAll(run.GetOutput(), 512, 100)
	run.Seconds = cleanSeconds(run.GetSeconds())
	return run
}

// addFile takes a file whose path and digest make sense. A file without a
// digest could not be read: that is missing, unless the agent said so itself.
func (o *observation) addFile(f *confinev1.FileSeen) {
	switch {
	case f.GetError() != "" || f.GetSha256() == "":
		name := clean(f.GetPath(), maxPath)
		known := slices.ContainsFunc(o.incomplete, func(i *confinev1.Incomplete) bool { return i.GetObject() == name })
		if !known {
			o.lack("unreadable-object", f.GetPath(), "it was executed or mapped, and can't be read: "+f.GetError())
		}
		if !canonical(f.GetPath()) || f.GetExecuted() == 0 {
			return
		}
		f.Sha256 = "" // what lies there now is still worth a look
	case !canonical(f.GetPath()):
		o.lack("unreadable-object", f.GetPath(), "the node named it by a path that leads to no file")
		return
	}
	if _, err := store.ParseDigest(f.GetSha256()); f.GetSha256() != "" && err != nil {
		o.lack("unreadable-object", f.GetPath(), "the node gave it a digest that is none")
		return
	}
	o.files = append(o.files, f)
}

// executed lists the files that were executed.
func (o *observation) executed() []*confinev1.FileSeen {
	var out []*confinev1.FileSeen
	for _, f := range o.files {
		if f.GetExecuted() > 0 {
			out = append(out, f)
		}
	}
	return out
}

// paths lists what the analysis will certainly ask about.
func (o *observation) paths() []string {
	var out []string
	for _, f := range o.files {
		out = append(out, f.GetPath(), path.Dir(f.GetPath()))
	}
	return append(out, "/", "/etc", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.cache", "/etc/ld.so.preload",
		"/etc/nsswitch.conf", "/lib", "/lib64", "/usr", "/usr/lib", "/usr/lib64", "/bin", "/usr/bin")
}

// programs is what the analysis starts from: all that was executed, with what
// each was seen to map; the entry point and the healthcheck; and what the
// operator named.
func (o *observation) programs(ctx context.Context, root rootfs.Root, spec *confinev1.RunSpec) ([]analysis.Program, error) {
	var out []analysis.Program
	known := map[string]int{} // index in out by path
	add := func(p analysis.Program) {
		if i, ok := known[p.Path]; ok {
			if len(out[i].Args) == 0 {
				out[i].Args = p.Args
			}
			return
		}
		known[p.Path] = len(out)
		p.Env = o.image.GetEnv()
		out = append(out, p)
	}
	for _, f := range o.executed() {
		add(analysis.Program{Path: f.GetPath(), Origin: analysis.OriginExecuted, Load: o.mappedBy(f.GetPath()), Unwatched: f.GetMappingsUnseen()})
	}
	if argv := o.image.GetArgs(); len(argv) > 0 {
		if p, ok := o.resolve(ctx, root, argv[0]); ok {
			add(analysis.Program{Path: p, Args: argv, Load: o.mappedBy(p)})
		} else if len(out) == 0 {
			o.lack("unreadable-object", argv[0], "the entry point is not to be found in the container's root")
		}
	}
	if argv := o.image.GetHealthcheck(); len(argv) > 0 {
		if p, ok := o.resolve(ctx, root, argv[0]); ok {
			add(analysis.Program{Path: p, Args: argv, Origin: analysis.OriginStatic})
		} else {
			o.lack("unreadable-object", argv[0], "the healthcheck's program is not to be found in the container's root")
		}
	}
	var modules []string
	for _, p := range spec.GetLoad() {
		module, err := o.isModule(ctx, root, p)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			o.lack("unreadable-object", p, "named by --load, and can't be read: "+err.Error())
		case module:
			modules = append(modules, p)
		default:
			add(analysis.Program{Path: p, Load: o.mappedBy(p)})
		}
	}
	for i := range out {
		out[i].Load = append(out[i].Load, modules...)
	}
	if len(out) == 0 {
		return nil, errors.New("no program was seen, and none is named: there is nothing to analyse")
	}
	return out, nil
}

// mappedBy lists the files that processes of an executable mapped, besides
// that itself.
func (o *observation) mappedBy(program string) []string {
	var out []string
	for _, f := range o.files {
		if f.GetMapped() && f.GetKind() == "elf" && f.GetPath() != program && slices.Contains(f.GetBy(), program) {
			out = append(out, f.GetPath())
		}
	}
	return out
}

// resolve finds a command as execvp would in the container.
func (o *observation) resolve(ctx context.Context, root rootfs.Root, name string) (string, bool) {
	var candidates []string
	switch {
	case path.IsAbs(name):
		candidates = []string{name}
	case strings.Contains(name, "/"):
		candidates = []string{path.Join("/", o.image.GetWorkingDir(), name)}
	default:
		for _, dir := range strings.Split(o.searchPath(), ":") {
			candidates = append(candidates, path.Join("/", dir, name))
		}
	}
	for _, c := range candidates {
		if e, err := root.Lookup(ctx, c); err == nil && e.Kind == rootfs.KindFile {
			return e.Path, true
		}
	}
	return "", false
}

// searchPath is PATH in the container; without one, that of runtimes.
func (o *observation) searchPath() string {
	found := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range o.image.GetEnv() {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			found = v // the last one counts
		}
	}
	return found
}

// isModule tells a shared object from a program. What isn't an ELF counts as
// a program: a script.
func (o *observation) isModule(ctx context.Context, root rootfs.Root, p string) (bool, error) {
	f, err := root.Open(ctx, p)
	if err != nil {
		return false, err
	}
	defer f.Close()
	file, err := elf.NewFile(f)
	if err != nil {
		return false, nil //nolint:nilerr // the analysis will say what it makes of it
	}
	if file.Type != elf.ET_DYN {
		return false, nil
	}
	interpreted := slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	flags, err := file.DynValue(elf.DT_FLAGS_1)
	pie := err == nil && len(flags) == 1 && elf.DynFlag1(flags[0])&elf.DF_1_PIE != 0
	return !interpreted && !pie, nil
}

// compareDigests finds files that changed between the moment they were seen
// and that at which they were analysed.
func (o *observation) compareDigests(ctx context.Context, root rootfs.Root) {
	for _, f := range o.files {
		if f.GetSha256() == "" {
			continue
		}
		digest, err := root.Digest(ctx, f.GetPath())
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, fs.ErrNotExist):
			o.lack("changed-object", f.GetPath(), "it was gone when it should be analysed: make the run longer or keep the file")
		case err != nil:
			o.lack("unreadable-object", f.GetPath(), err.Error())
		case digest != f.GetSha256():
			o.lack("changed-object", f.GetPath(), "its content changed after it was executed or mapped; only the later content was analysed")
		}
	}
}
