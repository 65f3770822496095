// Package observe turns a monitor's events into the set of files that a
// container executed and mapped, each opened early through the container's own
// root and hashed once.
package observe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// maxObject is the largest file that is hashed and uploaded, in bytes.
	maxObject = 1 << 30
	// maxFiles bounds how many different files one run may have.
	maxFiles = 10_000
	// maxNest bounds how many interpreters deep a script may be.
	maxNest = 4
	// hashers is how many files are hashed at once.
	hashers = 2
	// Bounds of what a broken monitor may fill: what is remembered of its events,
	// of processes, and of what is missing.
	maxKnown     = 4 * maxFiles
	maxProcesses = 1 << 16
	maxDenied    = 1 << 14
	maxMissing   = 1000
)

// Denied is one refused call as the monitor reports it.
type Denied = confinev1.DeniedCall

// Collector takes the events of one run. Handle is called by one goroutine;
// the other methods may be called at any time.
type Collector struct {
	Options
	root rootfs.Root
	ctx  context.Context
	keep Keeper
	work sync.WaitGroup
	// slots bounds the files that are hashed at once.
	slots chan struct{}

	mu sync.Mutex
	// files is keyed by canonical path, and content when a path had several.
	files map[string]*file
	// known is keyed by what a monitor reports; files that were looked at.
	known map[fileKey]*file
	// images is the executed file by host PID, called the path of a program by
	// what the monitor calls it.
	images  map[int32]string
	called  map[string]string
	origins *origins
	// own holds processes that entered from outside on the image's behalf.
	own map[int32]bool
	// denied holds refused calls, same place counted once.
	denied  []*Denied
	counts  map[deniedKey]uint32
	lost    uint64
	missing []*confinev1.Incomplete
	full    bool
	// lastNew is when the last new file appeared. unread holds when files
	// appeared at paths that are known: they are new unless their content is
	// known, too.
	lastNew time.Time
	unread  map[*file]time.Time
}

type fileKey struct {
	path          string
	inode, device uint64
}

type deniedKey struct {
	nr      int32
	process string
	object  string
	offset  uint64
	arch    uint32
}

// file is one FileSeen in the making.
type file struct {
	seen *confinev1.FileSeen
	// base is the path that it had, which others may have had before or after.
	base  string
	inode uint64 // as the monitor said, 0 when it didn't
	// lack is the kind of what is missing when seen.Error says why.
	lack string
	// live is true when it was found through its process.
	live bool
	// code is true for memory that a program made code in.
	code    bool
	content *Content // nil when it could not be opened
	by      map[string]bool
	// outside is what processes did with it that entered from outside, by the
	// one that entered.
	outside map[int32]*share
	// interp is the loader, set when the file was read.
	interp string
}

// share is one part of the executions of a file.
type share struct{ executed uint32 }

// Keeper takes files that stay open; it reports false when it has enough.
type Keeper interface {
	Keep(path string, c *Content) bool
}

// Options of a Collector; each may be left out.
type Options struct {
	// First process of the container; without it, nothing counts as come from
	// outside.
	First int32
	// Everybody counts what entered from outside as the container's own.
	Everybody bool
	// Recorded is true for events of a trace: their processes, times and numbers
	// of files are those of another machine.
	Recorded bool
	// KernelTime is true when the times of events are those of the kernel.
	KernelTime bool
}

// New returns a Collector of a container's root. ctx bounds its file reads.
// What was executed and mapped goes to keep, if it isn't nil.
func New(ctx context.Context, root rootfs.Root, keep Keeper, o Options) *Collector {
	return &Collector{
		Options: o, root: root, ctx: ctx, keep: keep,
		files: map[string]*file{}, known: map[fileKey]*file{}, images: map[int32]string{}, called: map[string]string{},
		origins: newOrigins(o.First), own: map[int32]bool{},
		counts: map[deniedKey]uint32{}, lastNew: time.Now(), unread: map[*file]time.Time{}, slots: make(chan struct{}, hashers),
	}
}

// Own says that a process that entered from outside belongs to the image, as
// its healthcheck does.
func (c *Collector) Own(pid int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own[pid] = true
}

// LastNew is when the last file appeared that had not been seen before. One that
// is written again with the content that it had is not new.
func (c *Collector) LastNew() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.lastNew
	for _, at := range c.unread {
		last = later(last, at)
	}
	return last
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Counts returns how many files and how many executed programs are known.
func (c *Collector) Counts() (files, programs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		files++
		if f.seen.Executed > 0 {
			programs++
		}
	}
	return files, programs
}

// Handle takes one event.
func (c *Collector) Handle(ev *confinev1.WatchResponse) {
	switch e := ev.Event.(type) {
	case *confinev1.WatchResponse_Exec:
		c.exec(e.Exec)
	case *confinev1.WatchResponse_Mapping:
		c.mapping(eventOf(e.Mapping.GetPid(), e.Mapping.GetPath(), e.Mapping.GetFile(), e.Mapping.GetTime(), false), e.Mapping.GetProcess())
	case *confinev1.WatchResponse_Exit:
		c.mu.Lock()
		delete(c.images, e.Exit.GetPid())
		c.mu.Unlock()
	case *confinev1.WatchResponse_Lost:
		c.mu.Lock()
		c.lost += e.Lost.GetCount()
		c.mu.Unlock()
	case *confinev1.WatchResponse_Denied:
		c.refused(e.Denied)
	}
}

func (c *Collector) refused(d *confinev1.DeniedCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := deniedKey{d.GetNr(), d.GetProcess(), d.GetObject(), d.GetOffset(), d.GetArch()}
	if _, known := c.counts[k]; !known && len(c.denied) >= maxDenied {
		c.full = true
		return
	}
	if c.counts[k]++; c.counts[k] == 1 {
		c.denied = append(c.denied, d)
	}
}

// Refused returns the refused calls in order of their first time, with how
// often each was refused at the same place.
func (c *Collector) Refused() (calls []*Denied, counts []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.denied {
		calls = append(calls, d)
		counts = append(counts, c.counts[deniedKey{d.GetNr(), d.GetProcess(), d.GetObject(), d.GetOffset(), d.GetArch()}])
	}
	return calls, counts
}

// Lost returns the number of lost events that were reported in the stream.
func (c *Collector) Lost() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *Collector) exec(e *confinev1.Exec) {
	image := c.see(eventOf(e.GetPid(), e.GetPath(), e.GetFile(), e.GetTime(), true))
	if image == nil {
		return
	}
	boot := e.GetTime()
	if !c.KernelTime {
		boot = 0
	}
	c.mu.Lock()
	if len(c.images) >= maxProcesses {
		clear(c.images)
	}
	root := c.origins.of(e.GetPid(), e.GetPpid(), e.GetOrigin(), boot)
	image.ran(root)
	c.images[e.GetPid()], c.called[e.GetPath()] = image.seen.Path, image.seen.Path
	c.mu.Unlock()
	c.script(e, image, root)
}

// Repeated adds executions that the monitor counted instead of telling each:
// those of a program that only processes from outside executed are theirs.
func (c *Collector) Repeated(programs []*confinev1.RepeatedExec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range programs {
		f := c.known[fileKey{p.GetPath(), p.GetFile().GetInode(), p.GetFile().GetDevice()}]
		if f == nil {
			continue
		}
		count := &f.seen.Executed
		if *count == 0 {
			for _, s := range f.outside {
				count = &s.executed
				break
			}
		}
		*count = uint32(min(uint64(*count)+p.GetCount(), math.MaxUint32))
	}
}

// ran counts an execution by a process that descends from root, which entered
// from outside, or is 0. The collector's mu is held.
func (f *file) ran(root int32) {
	if root == 0 {
		f.seen.Executed++
		return
	}
	f.share(root).executed++
}

func (f *file) share(root int32) *share {
	s := f.outside[root]
	if s == nil {
		s = &share{}
		f.outside[root] = s
	}
	return s
}

// script records the scripts of an exec whose file isn't the one that runs.
func (c *Collector) script(e *confinev1.Exec, image *file, root int32) {
	asked := e.GetFilename()
	if asked == "" || asked == e.GetPath() {
		return
	}
	if !path.IsAbs(asked) {
		// The working directory can have changed since; then the path isn't
		// found, or isn't a script, and the script is reported as missing.
		cwd, err := os.Readlink("/proc/" + strconv.Itoa(int(e.GetPid())) + "/cwd")
		if err != nil {
			cwd = "/"
		}
		asked = path.Join(cwd, asked)
	}
	if image.live && e.GetInterpreter() != "" {
		// The process sees other files than the container's first one.
		c.miss("unreadable-script", asked, "was executed by a process with a root or mounts of its own, where it can't be read; what it runs was still watched")
		return
	}
	entry, err := c.root.Lookup(c.ctx, asked)
	if err != nil {
		known := strings.HasPrefix(asked, "/dev/fd/") || strings.HasPrefix(asked, "/proc/")
		if e.GetInterpreter() != "" || !known && !image.live {
			c.miss("unreadable-script", asked, fmt.Sprintf("was executed but cannot be found any more: %v; if it is a script, what it runs was still watched", err))
		}
		return
	}
	if entry.Kind != rootfs.KindFile || entry.Path == image.base {
		return
	}
	script := c.scriptAt(e, entry.Path, root)
	if script == nil {
		return
	}
	for _, name := range e.GetNested() {
		if entry, err := c.root.Lookup(c.ctx, name); err == nil && entry.Kind == rootfs.KindFile {
			c.scriptAt(e, entry.Path, root)
		}
	}
	if len(e.GetNested()) == 0 {
		c.interpreters(e, script, root, maxNest)
	}
}

// scriptAt records one script of an exec.
func (c *Collector) scriptAt(e *confinev1.Exec, name string, root int32) *file {
	script := c.see(event{pid: e.GetPid(), name: name, boot: e.GetTime()})
	if script == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	script.ran(root)
	return script
}

// interpreters marks the interpreter of a script as executed when it is a
// script itself; the last one of the chain had an event of its own.
func (c *Collector) interpreters(e *confinev1.Exec, script *file, root int32, depth int) {
	if depth == 0 || script.seen.GetKind() != "script" {
		return
	}
	name, _, _ := strings.Cut(strings.TrimSpace(script.seen.GetShebang()), " ")
	if !path.IsAbs(name) {
		return
	}
	entry, err := c.root.Lookup(c.ctx, name)
	if err != nil || entry.Kind != rootfs.KindFile {
		return
	}
	next := c.see(event{name: entry.Path, boot: e.GetTime()})
	if next == nil || next.seen.GetKind() != "script" {
		return
	}
	c.mu.Lock()
	next.ran(root)
	c.mu.Unlock()
	c.interpreters(e, next, root, depth-1)
}

// mapping records a mapping in a program; by is "" when the monitor doesn't
// know which.
func (c *Collector) mapping(e event, by string) {
	f := c.see(e)
	if f == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f.seen.Mapped = true
	if path, ok := c.called[by]; ok {
		by = path
	}
	if by == "" {
		by = c.images[e.pid]
	}
	if by == "" {
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(int(e.pid)) + "/exe"); err == nil {
			by = exe
		}
	}
	// Of an unknown program: then it counts, whoever else mapped it.
	f.by[by] = true
}

// Mapped records a file that a process had mapped before the watch began, as
// /proc/PID/maps names it.
func (c *Collector) Mapped(pid int32, name string) {
	c.mapping(event{pid: pid, name: contractName(name)}, "")
}

// Running records a program that ran already when the watch began, as
// /proc/PID/exe names it.
func (c *Collector) Running(pid int32, name string) {
	if f := c.see(event{pid: pid, name: contractName(name), executed: true}); f != nil {
		c.mu.Lock()
		f.ran(c.origins.of(pid, parentOf(pid), 0, 0))
		c.images[pid], c.called[contractName(name)] = f.seen.Path, f.seen.Path
		c.mu.Unlock()
	}
}

func (c *Collector) miss(kind, object, detail string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.missing) >= maxMissing {
		c.full = true
		return
	}
	c.missing = append(c.missing, &confinev1.Incomplete{Kind: kind, Object: object, Detail: detail})
}

// gone reports whether an error of a Root means that there is no such file.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
