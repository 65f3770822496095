package observe

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// maxMaps bounds what is read of a process's list of mappings, in bytes.
const maxMaps = 16 << 20

// live opens the file of an event through the process that has it, which works
// for what has no path in the container's root: files in memory, unlinked ones,
// those of another mount namespace. It returns nil when the process is gone or
// has become another program.
func live(e event) opened {
	for _, name := range liveNames(e) {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), e.name)
		if s, err := stampOf(f); err == nil && (e.inode == 0 || s.inode == e.inode) {
			return f
		}
		_ = f.Close()
	}
	return nil
}

// liveNames lists where the kernel shows the file of an event.
func liveNames(e event) []string {
	if e.pid <= 0 {
		return nil
	}
	dir := "/proc/" + strconv.Itoa(int(e.pid))
	if e.executed {
		if text, err := os.Readlink(dir + "/exe"); err != nil || e.inode == 0 && contractName(text) != e.name {
			return nil
		}
		return []string{dir + "/exe"}
	}
	maps, err := os.Open(dir + "/maps")
	if err != nil {
		return nil
	}
	defer maps.Close()
	var names []string
	for m := range procfs.Mappings(io.LimitReader(maps, maxMaps)) {
		if m.Executable && m.Inode != 0 && (m.Inode == e.inode || contractName(m.Name) == e.name) {
			names = append(names, dir+"/map_files/"+m.MapFile())
		}
	}
	return names
}
