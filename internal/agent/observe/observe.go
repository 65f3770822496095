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
	"slices"
	"sort"
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
	// Bounds of what a broken monitor may fill: what is remembered of its events,
	// of processes, and of what is missing.
	maxKnown     = 4 * maxFiles
	maxProcesses = 1 << 16
	maxReasons   = 32
	maxDenied    = 1 << 14
	maxMissing   = 1000
	// hashers is how many files are hashed at once.
	hashers = 2
)

// Denied is one refused call as the monitor reports it.
type Denied = confinev1.DeniedCall

// Collector takes the events of one run. Handle is called by one goroutine;
// the other methods may be called at any time.
type Collector struct {
	root rootfs.Root
	ctx  context.Context
	work sync.WaitGroup
	// slots bounds the files that are hashed at once.
	slots chan struct{}

	mu sync.Mutex
	// files is keyed by canonical path, and content when a path had several.
	files map[string]*file
	// known is keyed by what a monitor reports; files that were looked at.
	known map[fileKey]*file
	// images is the executed file by host PID.
	images map[int32]string
	// denied holds refused calls, same place counted once.
	denied  []*Denied
	counts  map[deniedKey]uint32
	lost    uint64
	reasons []string
	missing []*confinev1.Incomplete
	full    bool
	lastNew time.Time
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
	by   map[string]bool
	// interp is the loader or the script's interpreter, set when it was read.
	interp string
}

// New returns a Collector of a container's root. ctx bounds its file reads.
func New(ctx context.Context, root rootfs.Root) *Collector {
	c := &Collector{
		root: root, ctx: ctx,
		files: map[string]*file{}, known: map[fileKey]*file{}, images: map[int32]string{},
		counts: map[deniedKey]uint32{}, lastNew: time.Now(), slots: make(chan struct{}, hashers),
	}
	return c
}

// LastNew is when the last file appeared that had not been seen before.
func (c *Collector) LastNew() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastNew
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
		c.mapping(e.Mapping.GetPid(), e.Mapping.GetPath(), e.Mapping.GetFile(), e.Mapping.GetProcess())
	case *confinev1.WatchResponse_Exit:
		c.mu.Lock()
		delete(c.images, e.Exit.GetPid())
		c.mu.Unlock()
	case *confinev1.WatchResponse_Lost:
		c.mu.Lock()
		c.lost += e.Lost.GetCount()
		if len(c.reasons) < maxReasons && !slices.Contains(c.reasons, e.Lost.GetReason()) {
			c.reasons = append(c.reasons, e.Lost.GetReason())
		}
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

// LossReasons returns why events were lost, as the monitor says.
func (c *Collector) LossReasons() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reasons)
}

func (c *Collector) exec(e *confinev1.Exec) {
	image := c.see(e.GetPid(), e.GetPath(), e.GetFile())
	if image == nil {
		return
	}
	c.mu.Lock()
	image.seen.Executed++
	if len(c.images) >= maxProcesses {
		clear(c.images)
	}
	c.images[e.GetPid()] = image.seen.Path
	c.mu.Unlock()
	c.script(e, image)
}

// Repeated adds executions that the monitor counted instead of telling each.
func (c *Collector) Repeated(programs []*confinev1.RepeatedExec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range programs {
		f := c.known[fileKey{p.GetPath(), p.GetFile().GetInode(), p.GetFile().GetDevice()}]
		if f != nil {
			f.seen.Executed = uint32(min(uint64(f.seen.Executed)+p.GetCount(), math.MaxUint32))
		}
	}
}

// script records the script of an exec whose file isn't the one that runs.
func (c *Collector) script(e *confinev1.Exec, image *file) {
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
	entry, err := c.root.Lookup(c.ctx, asked)
	if err != nil {
		if !strings.HasPrefix(asked, "/dev/fd/") && !strings.HasPrefix(asked, "/proc/") {
			c.miss("unreadable-script", asked, fmt.Sprintf("was executed but cannot be found any more: %v; if it is a script, what it runs was still watched", err))
		}
		return
	}
	if entry.Kind != rootfs.KindFile || entry.Path == image.seen.GetPath() {
		return
	}
	script := c.see(e.GetPid(), entry.Path, nil)
	if script == nil {
		return
	}
	c.mu.Lock()
	script.seen.Executed++
	c.mu.Unlock()
	c.interpreters(script, maxNest)
}

// interpreters marks the interpreter of a script as executed when it is a
// script itself; the last one of the chain had an event of its own.
func (c *Collector) interpreters(script *file, depth int) {
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
	next := c.see(0, entry.Path, nil)
	if next == nil || next.seen.GetKind() != "script" {
		return
	}
	c.mu.Lock()
	next.seen.Executed++
	c.mu.Unlock()
	c.interpreters(next, depth-1)
}

// mapping records a mapping in a program; by is "" when the monitor doesn't
// know which.
func (c *Collector) mapping(pid int32, name string, id *confinev1.FileId, by string) {
	f := c.see(pid, name, id)
	if f == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f.seen.Mapped = true
	if by == "" {
		by = c.images[pid]
	}
	if by == "" {
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe"); err == nil {
			by = exe
		}
	}
	if by != "" {
		f.by[by] = true
	}
}

// Mapped records a file that a process had mapped before the watch began, as
// /proc/PID/maps names it.
func (c *Collector) Mapped(pid int32, name string) { c.mapping(pid, contractName(name), nil, "") }

// Running records a program that ran already when the watch began, as
// /proc/PID/exe names it.
func (c *Collector) Running(pid int32, name string) {
	name = contractName(name)
	if f := c.see(pid, name, nil); f != nil {
		c.mu.Lock()
		f.seen.Executed++
		c.images[pid] = f.seen.Path
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

// Finish waits for the files to be read and returns them sorted by path, with
// what is missing.
func (c *Collector) Finish() ([]*confinev1.FileSeen, []*confinev1.Incomplete) {
	c.work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var files []*confinev1.FileSeen
	for _, f := range merge(c.files) {
		for by := range f.by {
			f.seen.By = append(f.seen.By, by)
		}
		sort.Strings(f.seen.By)
		files = append(files, f.seen)
		if f.seen.Error != "" {
			c.missing = append(c.missing, &confinev1.Incomplete{
				Kind: "unreadable-object", Object: f.seen.Path,
				Detail: "was executed or mapped but cannot be analysed: " + f.seen.Error,
			})
		}
	}
	slices.SortFunc(files, func(a, b *confinev1.FileSeen) int {
		if d := strings.Compare(a.Path, b.Path); d != 0 {
			return d
		}
		return strings.Compare(a.Sha256, b.Sha256)
	})
	if c.full {
		c.missing = append(c.missing, &confinev1.Incomplete{Kind: "too-many-files", Detail: fmt.Sprintf("the container executed or mapped more than %d different files, or had more refused or missing than is kept; the rest is not in the result", maxFiles)})
	}
	return files, c.missing
}

// merge joins files with the same path and content, which a monitor may have
// reported under two identities.
func merge(files map[string]*file) []*file {
	type key struct{ path, sha256 string }
	joined := map[key]*file{}
	var out []*file
	for _, f := range files {
		k := key{f.seen.Path, f.seen.Sha256}
		old, ok := joined[k]
		if !ok {
			joined[k] = f
			out = append(out, f)
			continue
		}
		old.seen.Executed += f.seen.Executed
		old.seen.Mapped = old.seen.Mapped || f.seen.Mapped
		for by := range f.by {
			old.by[by] = true
		}
	}
	return out
}

// gone reports whether an error of a Root means that there is no such file.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
