package observe

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// shebangMax is the length of a first line that the kernel reads
// (BINPRM_BUF_SIZE).
const shebangMax = 256

// deletedMark is what the kernel appends to the path of an unlinked file.
const deletedMark = " (deleted)"

// memoryFile begins the name of a file that exists only in memory, as monitors
// report it.
const memoryFile = "memfd:"

// unreachable begins the path of a file that doesn't lie below its process's
// root: it was opened in another mount namespace, or before the root changed.
const unreachable = "(unreachable)"

// contractName turns a name of /proc into that of a monitor.
func contractName(name string) string {
	if strings.HasPrefix(name, "/"+memoryFile) {
		return strings.TrimSuffix(name[1:], deletedMark)
	}
	return name
}

// event names a file as a monitor reports it.
type event struct {
	pid  int32
	name string
	// inode and device are 0 when the monitor doesn't know them.
	inode, device uint64
	// boot is when it happened, in nanoseconds since boot; 0 when unknown.
	boot uint64
	// executed is true when the file is the process's program.
	executed bool
}

func eventOf(pid int32, name string, id *confinev1.FileId, boot uint64, executed bool) event {
	return event{pid, name, id.GetInode(), id.GetDevice(), boot, executed}
}

// found is what became of looking for a file.
type found struct {
	// path is canonical, or a name for what has no path.
	path string
	open opened // nil when it cannot be read
	// why and kind say so then.
	why, kind string
	stamp     stamp
	// live is true when it came from its process and not by its path.
	live bool
	// code is true for memory that a program made code in (see madeCode).
	code bool
}

// Kinds of what is missing.
const (
	kindUnreadable = "unreadable-object"
	kindChanged    = "changed-object"
)

// see returns the file of an event, opened and queued for hashing when it is
// new; nil when there are too many.
func (c *Collector) see(e event) *file {
	if c.Recorded {
		e.pid, e.inode, e.device, e.boot = 0, 0, 0, 0
	}
	key := fileKey{e.name, e.inode, e.device}
	c.mu.Lock()
	f, ok := c.known[key]
	if !ok && len(c.known) >= maxKnown {
		c.full, ok = true, true
	}
	same := ok && (f == nil || f.content == nil || f.content.closed || !f.content.changed())
	c.mu.Unlock()
	if same {
		return f
	}
	got := c.find(e)
	if madeCode(e, got) {
		_ = got.open.Close()
		got.open, got.code = nil, true
	}
	c.mu.Lock()
	f, fresh := c.place(e, got)
	c.known[key] = f
	c.mu.Unlock()
	switch {
	case fresh && got.open != nil:
		c.read(f)
	case got.open != nil:
		_ = got.open.Close()
	}
	return f
}

// place returns the file for what was found: a known one with the same content
// under the same path, or a new one. A path whose content is replaced during
// the run is several files, of which the later ones get a number. mu is held.
func (c *Collector) place(e event, got found) (f *file, fresh bool) {
	for n := 1; ; n++ {
		slot := slotOf(got.path, n)
		old, taken := c.files[slot]
		switch {
		case taken && old.sameAs(e, got):
			return old, false
		case taken:
			continue
		case len(c.files) >= maxFiles:
			c.full = true
			return nil, false
		}
		f := &file{
			seen: &confinev1.FileSeen{Path: slot, Kind: "unknown", Size: uint64(max(got.stamp.size, 0)), Error: got.why},
			base: got.path, inode: e.inode, lack: got.kind, live: got.live, code: got.code, by: map[string]bool{}, outside: map[int32]*share{},
		}
		if got.open != nil {
			f.content = &Content{file: got.open, stamp: got.stamp}
		}
		c.files[slot] = f
		if n > 1 && got.open != nil {
			c.unread[f] = time.Now()
		} else {
			c.lastNew = time.Now()
		}
		return f, true
	}
}

// slotOf names the nth content of a path.
func slotOf(path string, n int) string {
	if n == 1 {
		return path
	}
	return fmt.Sprintf("%s (%d)", path, n)
}

// wasRead counts a file as new unless its path has had this content. mu is held.
func (c *Collector) wasRead(f *file) {
	at, waits := c.unread[f]
	if !waits {
		return
	}
	delete(c.unread, f)
	for n := 1; f.seen.Sha256 != ""; n++ {
		old, ok := c.files[slotOf(f.base, n)]
		if !ok {
			break
		}
		if old != f && old.seen.Sha256 == f.seen.Sha256 {
			return
		}
	}
	c.lastNew = later(c.lastNew, at)
}

// sameAs reports whether what was found is this file.
func (f *file) sameAs(e event, got found) bool {
	switch {
	case f.code || got.code:
		return f.code && got.code
	case f.content != nil && got.open != nil:
		return f.content.stamp == got.stamp
	case f.content != nil:
		// It was opened before it went away.
		return e.inode != 0 && f.content.stamp.inode == e.inode
	case got.open != nil:
		return false
	}
	return f.inode == e.inode || f.inode == 0 || e.inode == 0
}

// madeCode reports whether a file is no program and no library but memory that
// compilers at run time share between a mapping that they write to and one that
// they execute (Erlang and .NET do): nobody executed it, it has no path, and it
// isn't an ELF file.
func madeCode(e event, got found) bool {
	if e.executed || !got.live || got.open == nil {
		return false
	}
	head := make([]byte, len(elf.ELFMAG))
	n, err := got.open.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && string(head[:n]) != elf.ELFMAG
}

// find opens the file of an event: by its path in the container's root when
// that is the same file still, through its process otherwise.
func (c *Collector) find(e event) found {
	if got := c.findElsewhere(e); got.open != nil {
		return got
	}
	got, mistaken := c.findByPath(e)
	if got.open == nil {
		if f := live(e); f != nil {
			got = c.accept(found{path: got.path, live: true}, f)
		}
	}
	if got.open == nil && mistaken {
		got.kind = kindChanged
	}
	return got
}

// findElsewhere looks for an unreachable file in the container's root, from
// where a copy of its mounts may have been made. Another file system can have
// another file of that number there.
func (c *Collector) findElsewhere(e event) found {
	below, ok := strings.CutPrefix(e.name, unreachable)
	if !ok || e.inode == 0 || e.device == 0 {
		return found{}
	}
	e.name = below
	got, _ := c.findByPath(e)
	if got.open != nil && got.stamp.device != e.device {
		_ = got.open.Close()
		return found{}
	}
	return got
}

// accept takes an open file unless it is too large.
func (c *Collector) accept(got found, f opened) found {
	s, err := stampOf(f)
	switch {
	case err != nil:
		got.why = err.Error()
	case s.size > maxObject:
		got.why, got.stamp = fmt.Sprintf("it is larger than %d bytes", maxObject), s
	default:
		got.open, got.stamp = f, s
		return got
	}
	got.kind = kindUnreadable
	_ = f.Close()
	return got
}

// findByPath looks a path up in the container's root. mistaken is true when
// another file lies there by now.
func (c *Collector) findByPath(e event) (got found, mistaken bool) {
	got = found{path: e.name, kind: kindUnreadable}
	switch {
	case strings.HasPrefix(e.name, memoryFile):
		got.path = "/" + strings.ReplaceAll(e.name, "/", "_")
		got.why = "it exists only in memory (memfd), and its process had ended before it could be read"
		return got, false
	case strings.HasPrefix(e.name, "/dev/zero"), !path.IsAbs(e.name):
		got.path = path.Clean("/" + e.name)
		if e.name == "" {
			got.path = "/(nameless)"
		}
		got.why = "it has no path in the container's root"
		return got, false
	}
	entry, err := c.root.Lookup(c.ctx, e.name)
	if err != nil && strings.HasSuffix(e.name, deletedMark) {
		got.path = strings.TrimSuffix(e.name, deletedMark)
		got.why = "it was deleted"
		return got, false
	}
	switch {
	case gone(err):
		got.why = "it is not in the container's root any more"
		return got, false
	case err != nil:
		got.why = err.Error()
		return got, false
	case entry.Kind != rootfs.KindFile:
		got.why = "it is no regular file"
		return got, false
	}
	got.path = entry.Path
	f, err := c.root.Open(c.ctx, entry.Path)
	if err != nil {
		got.why = err.Error()
		return got, false
	}
	o, ok := f.(opened)
	if !ok {
		got.why = "its root tells nothing about files"
		return got, false
	}
	s, err := stampOf(o)
	switch {
	case err != nil:
		got.why = err.Error()
	case e.inode != 0 && s.inode != e.inode:
		got.why, mistaken = "another file lies at its path now", true
	case s.after(e.boot) && !runs(e, s):
		got.why, mistaken = "it was changed after it was executed or mapped", true
	default:
		return c.accept(found{path: got.path}, o), false
	}
	_ = o.Close()
	return got, mistaken
}

// runs reports whether a process still runs this file: then its content, which
// nobody can write meanwhile, is what was executed.
func runs(e event, s stamp) bool {
	if !e.executed {
		return false
	}
	f := live(e)
	if f == nil {
		return false
	}
	defer f.Close()
	now, err := stampOf(f)
	return err == nil && now.inode == s.inode && now.device == s.device
}

// read classifies the file at once and hashes it in the background.
func (c *Collector) read(f *file) {
	kind, shebang, interp := classify(f.content)
	c.mu.Lock()
	f.seen.Kind, f.seen.Shebang, f.interp = kind, shebang, interp
	c.mu.Unlock()
	if kind == "elf" && path.IsAbs(interp) {
		// The kernel maps it with the program.
		if loader := c.see(event{name: interp}); loader != nil {
			c.mu.Lock()
			loader.seen.Mapped = true
			loader.by[f.seen.Path] = true
			c.mu.Unlock()
		}
	}
	c.work.Go(func() {
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
		digest, err := c.hash(f.content)
		c.mu.Lock()
		defer c.mu.Unlock()
		defer c.wasRead(f)
		if err != nil {
			f.seen.Error, f.lack = fmt.Sprintf("read it: %v", err), kindUnreadable
			if f.content.changed() {
				f.seen.Error, f.lack = "it was changed while it was read", kindChanged
			}
			f.drop()
			return
		}
		f.seen.Sha256, f.content.digest = digest, digest
		if c.keep == nil || !c.keep.Keep(f.seen.Path, f.content) {
			f.drop()
		}
	})
}

// drop closes what nobody keeps. The collector's mu is held.
func (f *file) drop() {
	f.content.closed = true
	_ = f.content.Close()
}

// hash reads the content that a file has had since it was opened.
func (c *Collector) hash(f *Content) (string, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(f, 0, f.Size()))
	switch {
	case err != nil:
		return "", err
	case c.ctx.Err() != nil:
		return "", c.ctx.Err()
	case n != f.Size() || f.changed():
		return "", errors.New("it changed meanwhile")
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// classify returns the kind of a file, the first line after "#!" of a script,
// and the loader that an ELF asks for.
func classify(r io.ReaderAt) (kind, shebang, interp string) {
	head := make([]byte, shebangMax)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "unknown", "", ""
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return "elf", "", loaderOf(r)
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := bytes.Cut(head[2:], []byte("\n"))
		return "script", strings.ToValidUTF8(strings.TrimSpace(string(line)), "\uFFFD"), ""
	default:
		return "unknown", "", ""
	}
}

// loaderOf returns the content of PT_INTERP, "" when there is none.
func loaderOf(r io.ReaderAt) string {
	f, err := elf.NewFile(r)
	if err != nil {
		return ""
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return ""
		}
		name, _, _ := strings.Cut(string(b), "\x00")
		return name
	}
	return ""
}
