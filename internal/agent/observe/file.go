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

// contractName turns a name of /proc into that of a monitor.
func contractName(name string) string {
	if strings.HasPrefix(name, "/"+memoryFile) {
		return strings.TrimSuffix(name[1:], deletedMark)
	}
	return name
}

// see returns the file of an event, opened and queued for hashing when it is
// new; nil when there are too many.
func (c *Collector) see(pid int32, name string, id *confinev1.FileId) *file {
	key := fileKey{name, id.GetInode(), id.GetDevice()}
	c.mu.Lock()
	f, ok := c.known[key]
	if !ok && len(c.known) >= maxKnown {
		c.full, ok = true, true
	}
	c.mu.Unlock()
	if ok {
		return f
	}
	seen, open := c.open(name)
	c.mu.Lock()
	if len(c.files) >= maxFiles {
		c.full = true
		c.known[key] = nil
		c.mu.Unlock()
		return nil
	}
	// A path whose content is replaced during the run is two files.
	slot := seen.Path
	if old, ok := c.files[slot]; ok {
		if !c.replaced(key) {
			c.known[key] = old
			c.mu.Unlock()
			if open != nil {
				_ = open.Close()
			}
			return old
		}
		slot = fmt.Sprintf("%s\x00%d:%d", seen.Path, key.device, key.inode)
	}
	f = &file{seen: seen, by: map[string]bool{}}
	c.files[slot], c.known[key] = f, f
	c.lastNew = time.Now()
	c.mu.Unlock()
	if open != nil {
		c.read(f, open)
	}
	return f
}

// replaced reports whether a file with the same name and another identity was
// seen before. mu is held.
func (c *Collector) replaced(key fileKey) bool {
	if key.inode == 0 {
		return false
	}
	for k := range c.known {
		if k.path == key.path && k.inode != 0 && (k.inode != key.inode || k.device != key.device) {
			return true
		}
	}
	return false
}

// open looks a path up in the container's root. The file is nil when it cannot
// be read; seen.Error says why.
func (c *Collector) open(name string) (*confinev1.FileSeen, rootfs.File) {
	seen := &confinev1.FileSeen{Path: name, Kind: "unknown"}
	switch {
	case strings.HasPrefix(name, memoryFile):
		seen.Error = "it exists only in memory (memfd)"
		return seen, nil
	case strings.HasPrefix(name, "/dev/zero"), !path.IsAbs(name):
		seen.Error = "it has no path in the container's root"
		return seen, nil
	}
	entry, err := c.root.Lookup(c.ctx, name)
	if err != nil && strings.HasSuffix(name, deletedMark) {
		seen.Path = strings.TrimSuffix(name, deletedMark)
		seen.Error = "it was deleted"
		return seen, nil
	}
	switch {
	case gone(err):
		seen.Error = "it is not in the container's root any more"
		return seen, nil
	case err != nil:
		seen.Error = err.Error()
		return seen, nil
	case entry.Kind != rootfs.KindFile:
		seen.Error = "it is no regular file"
		return seen, nil
	}
	seen.Path = entry.Path
	open, err := c.root.Open(c.ctx, entry.Path)
	if err != nil {
		seen.Error = err.Error()
		return seen, nil
	}
	seen.Size = uint64(open.Size())
	if open.Size() > maxObject {
		seen.Error = fmt.Sprintf("it is larger than %d bytes", maxObject)
		_ = open.Close()
		return seen, nil
	}
	return seen, open
}

// read classifies the file at once and hashes it in the background.
func (c *Collector) read(f *file, open rootfs.File) {
	kind, shebang, interp := classify(open)
	c.mu.Lock()
	f.seen.Kind, f.seen.Shebang, f.interp = kind, shebang, interp
	c.mu.Unlock()
	if kind == "elf" && path.IsAbs(interp) {
		// The kernel maps it with the program.
		if loader := c.see(0, interp, nil); loader != nil {
			c.mu.Lock()
			loader.seen.Mapped = true
			loader.by[f.seen.Path] = true
			c.mu.Unlock()
		}
	}
	c.work.Go(func() {
		defer open.Close()
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
		h := sha256.New()
		_, err := io.Copy(h, io.NewSectionReader(open, 0, open.Size()))
		if err == nil {
			err = c.ctx.Err()
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			f.seen.Error = fmt.Sprintf("read it: %v", err)
			return
		}
		f.seen.Sha256 = hex.EncodeToString(h.Sum(nil))
	})
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
