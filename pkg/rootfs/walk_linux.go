package rootfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of one walk; those of Linux.
const (
	maxLinks = 40
	maxPath  = 4096 // bytes, the final NUL included
	maxName  = 255  // bytes
)

// node is one resolved path, held by an O_PATH descriptor.
type node struct {
	fd     int
	path   string // canonical
	stat   unix.Stat_t
	pseudo bool // on a file system that the kernel makes up
}

func (n *node) close() { _ = unix.Close(n.fd) }

func (n *node) kind() Kind {
	switch n.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if n.pseudo {
			return KindOther
		}
		return KindFile
	case unix.S_IFDIR:
		return KindDir
	}
	return KindOther
}

func (n *node) entry() Entry {
	e := Entry{Path: n.path, Kind: n.kind(), Mode: fs.FileMode(n.stat.Mode & 0o777)}
	if e.Kind == KindFile {
		e.Size = n.stat.Size
	}
	return e
}

// resolve finds what a path is: in few steps where that is possible.
func (d *Dir) resolve(ctx context.Context, path string) (*node, error) {
	switch {
	case path == "":
		return nil, unix.ENOENT
	case len(path) >= maxPath:
		return nil, unix.ENAMETOOLONG
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if n, err := d.direct(path); n != nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return n, err
	}
	return d.byParts(ctx, path)
}

// byParts walks path one component at a time, each opened without following
// links from the descriptor of the directory before it. ".." goes back to a
// descriptor that the walk came through, never to what the kernel thinks is
// the parent now. So no rename can lead the walk out of the root.
func (d *Dir) byParts(ctx context.Context, path string) (*node, error) {
	w, err := d.newWalk()
	if err != nil {
		return nil, err
	}
	defer w.closeAll()
	todo := components(path)
	for links := 0; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		target, err := w.step(name)
		if err != nil {
			return nil, err
		}
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		if target[0] == '/' {
			w.truncate(1)
		}
		todo = append(todo, components(target)...)
	}
	return w.finish()
}

// direct resolves a path in few steps of the kernel, none of which follows a
// link: links at the end of the path and in its first part, such as /lib, are
// put into the path as text. It returns no node for what that doesn't resolve,
// and where the kernel lacks openat2 (before 5.6). Without links and ".." each
// step leads down only, so that no rename can lead it out of the root.
func (d *Dir) direct(p string) (*node, error) {
	for range maxLinks + 1 {
		if len(p) < 2 || len(p) >= maxPath || p[0] != '/' || path.Clean(p) != p {
			return nil, nil
		}
		n, err := d.down(p)
		switch {
		case errors.Is(err, unix.ELOOP):
			p = d.behindFirst(p)
		case err != nil:
			return nil, err
		case n.stat.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := readlink(n.fd)
			n.close()
			if err != nil {
				return nil, err
			}
			p = behind(path.Dir(p), target)
		default:
			return n, nil
		}
	}
	return nil, nil
}

// down opens a path without links, but for its last part, which may be one. Where
// there are others the error is ELOOP.
func (d *Dir) down(p string) (*node, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	n := &node{path: p}
	err := d.at(func(root int) (err error) {
		n.fd, err = unix.Openat2(root, p[1:], &how)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := n.look(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// at calls do with the descriptor of the root, which stays open meanwhile.
func (d *Dir) at(do func(root int) error) error {
	conn, err := d.root.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := conn.Control(func(root uintptr) { doErr = do(int(root)) }); err != nil {
		return err
	}
	return doErr
}

// behindFirst puts the target of a link that is the first part of a path into
// the path; "" when it is none.
func (d *Dir) behindFirst(p string) string {
	first, rest, _ := strings.Cut(p[1:], "/")
	var buf [maxPath]byte
	var count int
	err := d.at(func(root int) (err error) {
		count, err = unix.Readlinkat(root, first, buf[:])
		return err
	})
	if err != nil || count == len(buf) {
		return ""
	}
	if p = behind("/", string(buf[:count])); p == "" {
		return ""
	}
	return p + "/" + rest
}

// behind is the path of a link's target, whose folder is dir; "" where a step
// back may make it another one.
func behind(dir, target string) string {
	switch {
	case target == "" || strings.Contains(target, ".."):
		return ""
	case target[0] == '/':
		return target
	case dir == "/":
		return dir + target
	}
	return dir + "/" + target
}

// look finds out what the node is.
func (n *node) look() error {
	if err := unix.Fstat(n.fd, &n.stat); err != nil {
		return err
	}
	if n.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(n.fd, &st); err != nil {
		return err
	}
	n.pseudo = isPseudo(st.Type)
	return nil
}

// components returns the parts of a path in reverse, ready to be popped. A
// final slash leaves a final ".", which only a directory has.
func components(path string) []string {
	parts := strings.Split(path, "/")
	out := make([]string, 0, len(parts))
	for i := len(parts) - 1; i >= 0; i-- {
		switch {
		case parts[i] != "":
			out = append(out, parts[i])
		case i == len(parts)-1:
			out = append(out, ".")
		}
	}
	return out
}

// walk is the way from the root to where a resolution stands.
type walk struct {
	fds   []int    // fds[0] is the root; each owned
	names []string // names[i] led from fds[i] to fds[i+1]
}

func (d *Dir) newWalk() (*walk, error) {
	// A duplicate, so that a Close at the same time can't hand the number to
	// another file.
	fd := -1
	err := d.at(func(root int) (err error) {
		fd, err = unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &walk{fds: []int{fd}}, nil
}

func (w *walk) truncate(n int) {
	for _, fd := range w.fds[n:] {
		_ = unix.Close(fd)
	}
	w.fds, w.names = w.fds[:n], w.names[:n-1]
}

func (w *walk) closeAll() {
	for _, fd := range w.fds {
		_ = unix.Close(fd)
	}
	w.fds = nil
}

// step goes to one component of the place where the walk stands. When that is
// a symbolic link it stays and returns the link's target.
func (w *walk) step(name string) (target string, err error) {
	top := w.fds[len(w.fds)-1]
	switch {
	case len(name) > maxName:
		return "", unix.ENAMETOOLONG
	case name == "." || name == "..":
		if err := mustBeDir(top); err != nil {
			return "", err
		}
		if name == ".." && len(w.fds) > 1 {
			w.truncate(len(w.fds) - 1)
		}
		return "", nil
	}
	fd, err := unix.Openat(top, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	target, err = readlink(fd)
	if err != nil || target != "" {
		_ = unix.Close(fd)
		return target, err
	}
	w.fds = append(w.fds, fd)
	w.names = append(w.names, name)
	return "", nil
}

func mustBeDir(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return nil
}

// readlink returns the target of an O_PATH descriptor of a symbolic link, and
// "" for anything else.
func readlink(fd int) (string, error) {
	var buf [maxPath]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL):
		return "", nil // not a link
	case err != nil:
		return "", err
	case n == 0:
		return "", unix.ENOENT
	case n == len(buf):
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}

// finish hands the place where the walk stands to the caller.
func (w *walk) finish() (*node, error) {
	last := len(w.fds) - 1
	n := &node{fd: w.fds[last], path: "/" + strings.Join(w.names, "/")}
	if err := n.look(); err != nil {
		return nil, err
	}
	w.fds = w.fds[:last]
	return n, nil
}

// isPseudo says whether a file system's files are made up by the kernel as
// they are read: without a size, endless, or blocking.
func isPseudo(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC,
		unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
		unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.SELINUX_MAGIC,
		unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC, unix.NSFS_MAGIC,
		unix.BINFMTFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.DEVMEM_MAGIC, unix.AUTOFS_SUPER_MAGIC:
		return true
	}
	return false
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
