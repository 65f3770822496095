package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of the kernel: BINPRM_BUF_SIZE bytes of a file are looked at, and
// interpreters nest this deep.
const (
	headSize    = 256
	scriptDepth = 5
)

// defaultPath is where programs are looked for by those that know no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Root resolves names inside the root of a process, and never outside. It
// keeps the root, with what is mounted below, after the process has ended.
type Root struct {
	fd, ns int
	at     string // the root as this process sees it
}

// OpenRoot opens the root of a process.
func OpenRoot(pid int32) (*Root, error) {
	base := "/proc/" + strconv.Itoa(int(pid))
	ns, err := unix.Open(base+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the mount namespace of process %d: %w", pid, gone(err))
	}
	fd, err := unix.Open(base+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(ns)
		return nil, fmt.Errorf("open the root of process %d: %w", pid, gone(err))
	}
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		at = "/"
	}
	return &Root{fd: fd, ns: ns, at: at}, nil
}

// Close releases the root.
func (r *Root) Close() {
	_ = unix.Close(r.fd)
	_ = unix.Close(r.ns)
}

// Found is a regular file inside a root.
type Found struct {
	File
	mode uint32
	head []byte // its first bytes
}

// executable reports whether somebody may execute the file.
func (f Found) executable() bool { return f.mode&0o111 != 0 }

// IsELF reports whether the file is an ELF.
func (f Found) IsELF() bool { return bytes.HasPrefix(f.head, []byte("\x7fELF")) }

// Interpreter is what the "#!" line of a script names, "" for other files.
func (f Found) Interpreter() string {
	return procfs.Interpreter(f.head)
}

// Resolve finds a regular file by a name relative to a working folder.
func (r *Root) Resolve(cwd, name string) (Found, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return Found{}, os.ErrNotExist
	}
	if !path.IsAbs(name) {
		// Not cleaned: ".." after a link leads elsewhere than its text says.
		name = cwd + "/" + name
	}
	fd, err := unix.Openat2(r.fd, strings.TrimLeft(name, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return Found{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Found{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Found{}, errors.New("it is no regular file")
	}
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return Found{}, err
	}
	out := Found{
		File: File{Path: inRoot(at, r.at), ID: &confinev1.FileId{Inode: st.Ino, Device: st.Dev}},
		mode: st.Mode,
	}
	// Through the magic link, so that it is the same file.
	if f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd)); err == nil {
		head := make([]byte, headSize)
		n, _ := io.ReadFull(f, head)
		out.head = head[:n]
		_ = f.Close()
	}
	return out, nil
}

// Search finds a program as execvp does: by PATH unless its name has a slash.
func (r *Root) Search(cwd, name, search string) (Found, error) {
	if strings.Contains(name, "/") {
		return r.Resolve(cwd, name)
	}
	if search == "" {
		search = defaultPath
	}
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		if f, err := r.Resolve(cwd, dir+"/"+name); err == nil && f.executable() {
			return f, nil
		}
	}
	return Found{}, os.ErrNotExist
}

// Chain follows a script to the program that runs it: the scripts in between,
// outermost first, and that program. A program is its own chain.
func (r *Root) Chain(f Found) (between []string, interpreter string, last Found, err error) {
	for range scriptDepth + 1 {
		next := f.Interpreter()
		if next == "" {
			return between, interpreter, f, nil
		}
		if interpreter != "" {
			between = append(between, f.Path)
		}
		interpreter = next
		if f, err = r.Resolve("/", next); err != nil {
			return nil, "", Found{}, fmt.Errorf("interpreter %s: %w", next, err)
		}
	}
	return nil, "", Found{}, errors.New("its interpreters are scripts without an end")
}
