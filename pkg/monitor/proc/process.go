// Package proc completes from /proc what a monitor is told by a tool that
// knows names and process numbers alone: which file a process really runs,
// which files it has mapped, and whether it belongs to a scope.
//
// Everything here looks at processes that may end, or become another program,
// at any moment. A Process is pinned: once it has ended, its methods fail and
// never speak of a later process with the same number.
package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// maxMaps is how much of /proc/PID/maps is read, in bytes: some 65,000
	// mappings, the kernel's default limit, with short names.
	maxMaps = 8 << 20
	// maxSmall is how much of the other files is read.
	maxSmall = 64 << 10
	// maxLink is the longest link that is read (PATH_MAX and a mark).
	maxLink = 4096 + 64
)

// ErrGone means that a process has ended.
var ErrGone = errors.New("the process has ended")

// Process is one process of this machine.
type Process struct {
	PID int32
	dir int // its folder in /proc, O_PATH
}

// Open pins a process. It fails with ErrGone when there is none.
func Open(pid int32) (*Process, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(int(pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone(err)
	}
	return &Process{PID: pid, dir: fd}, nil
}

// Close unpins the process.
func (p *Process) Close() { _ = unix.Close(p.dir) }

// gone makes the kernel's ways to say that a process has ended one.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// File is a file that a process has executed or mapped.
type File struct {
	// Path in the process's own root, as confine.v1.Mapping states it.
	Path string
	ID   *confinev1.FileId
}

// Image returns the file that the process runs now.
func (p *Process) Image() (File, error) {
	path, err := p.link("exe")
	if err != nil {
		return File{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, "exe", &st, 0); err != nil {
		return File{}, gone(err)
	}
	root, err := p.link("root")
	if err != nil {
		return File{}, err
	}
	return File{Path: inRoot(path, root), ID: &confinev1.FileId{Inode: st.Ino, Device: st.Dev}}, nil
}

// Cwd returns the working folder of the process in its own root.
func (p *Process) Cwd() (string, error) {
	cwd, err := p.link("cwd")
	if err != nil {
		return "", err
	}
	root, err := p.link("root")
	if err != nil {
		return "", err
	}
	return inRoot(cwd, root), nil
}

// Parent returns the number of the parent process.
func (p *Process) Parent() (int32, error) {
	fields, err := p.stat()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(fields[1], 10, 32)
	return int32(n), err
}

// Started returns when the process was started, in ticks since the system's
// start: with its number, what tells it from others.
func (p *Process) Started() (uint64, error) {
	fields, err := p.stat()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// stat returns the fields of /proc/PID/stat from the third, state, on.
func (p *Process) stat() ([]string, error) {
	b, err := p.read("stat", maxSmall)
	if err != nil {
		return nil, err
	}
	fields := procfs.StatFields(b)
	if len(fields) < 20 {
		return nil, fmt.Errorf("read /proc/%d/stat: it has %d fields", p.PID, len(fields))
	}
	return fields, nil
}

// Namespace returns the inode number of a namespace: "mnt", "pid".
func (p *Process) Namespace(kind string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, "ns/"+kind, &st, 0); err != nil {
		return 0, gone(err)
	}
	return st.Ino, nil
}

// Cgroup returns the path of the process in the cgroup v2 hierarchy, "" when
// it is in none.
func (p *Process) Cgroup() (string, error) {
	b, err := p.read("cgroup", maxSmall)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n"), nil
		}
	}
	return "", nil
}

// Args returns the argument vector, at most maxSmall bytes of it. A process
// may have changed it.
func (p *Process) Args() ([]string, error) {
	b, err := p.read("cmdline", maxSmall)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// Env returns a variable of the environment that the process was started
// with.
func (p *Process) Env(name string) (string, error) {
	b, err := p.read("environ", maxSmall)
	if err != nil {
		return "", err
	}
	for kv := range strings.SplitSeq(string(b), "\x00") {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v, nil
		}
	}
	return "", nil
}

// Mappings lists the files that the process has mapped executable, each once.
func (p *Process) Mappings() ([]File, error) {
	b, err := p.read("maps", maxMaps)
	if err != nil {
		return nil, err
	}
	root, err := p.link("root")
	if err != nil {
		return nil, err
	}
	return parseMaps(string(b), root), nil
}

func (p *Process) link(name string) (string, error) {
	b := make([]byte, maxLink)
	n, err := unix.Readlinkat(p.dir, name, b)
	if err != nil {
		return "", gone(err)
	}
	return string(b[:n]), nil
}

func (p *Process) read(name string, limit int64) ([]byte, error) {
	fd, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, gone(err)
	}
	if len(b) == 0 && name == "maps" {
		return nil, ErrGone // a process that has ended and isn't reaped has none
	}
	return b, nil
}
