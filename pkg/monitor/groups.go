package monitor

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxGroups bounds how many cgroups of one watch are remembered.
const maxGroups = 4096

// groups tells which cgroups lie in that of a scope. The zero value takes any
// for one that does.
type groups struct {
	dir    string          // of the scope's, in a mounted hierarchy
	mount  *os.File        // of that hierarchy
	inside map[uint64]bool // what was found out, by cgroup id
}

// newGroups finds the folder of a cgroup. When it can't be found, nothing is
// ever foreign.
func newGroups(id uint64) groups {
	if id == 0 {
		return groups{}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return groups{}
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		mount, err := os.Open(f[1])
		if err != nil {
			continue
		}
		g := groups{mount: mount, inside: map[uint64]bool{id: true}}
		if g.dir = g.path(id); g.dir != "" {
			return g
		}
		_ = mount.Close()
	}
	return groups{}
}

// foreign reports whether a cgroup surely isn't in the scope's. One that is
// gone can't be looked up any more.
func (g *groups) foreign(id uint64) bool {
	if g.dir == "" || id == 0 {
		return false
	}
	if in, ok := g.inside[id]; ok {
		return !in
	}
	path := g.path(id)
	in := path == "" || path == g.dir || strings.HasPrefix(path, g.dir+"/")
	if len(g.inside) < maxGroups {
		g.inside[id] = in
	}
	return !in
}

// path returns the folder of a cgroup, "" when there is none.
func (g *groups) path(id uint64) string {
	// FILEID_KERNFS: the handle is the id alone.
	handle := unix.NewFileHandle(0xfe, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(g.mount.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return ""
	}
	return path
}

func (g *groups) close() {
	if g.mount != nil {
		_ = g.mount.Close()
	}
}
