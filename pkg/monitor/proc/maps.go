package proc

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// memoryFile begins the path of a file without a place in a file system.
const memoryFile = "memfd:"

// deletedMark is what the kernel appends to the path of an unlinked file.
const deletedMark = " (deleted)"

// parseMaps returns the files of executable mappings in the format of
// /proc/PID/maps, each once. root is the process's root as the reader sees it.
func parseMaps(text, root string) []File {
	var out []File
	seen := map[fileKey]bool{}
	for line := range strings.Lines(text) {
		f, ok := parseMap(line)
		if !ok {
			continue
		}
		k := keyOf(f)
		if seen[k] {
			continue
		}
		seen[k] = true
		f.Path = inRoot(f.Path, root)
		out = append(out, f)
	}
	return out
}

// parseMap reads one line; it reports false for what isn't an executable
// mapping of a file.
func parseMap(line string) (File, bool) {
	m, ok := procfs.ParseMapping(line)
	if !ok || !m.Executable || m.Inode == 0 || !strings.HasPrefix(m.Name, "/") {
		return File{}, false
	}
	return File{Path: m.Name, ID: &confinev1.FileId{Inode: m.Inode, Device: unix.Mkdev(m.Major, m.Minor)}}, true
}

// inRoot turns a path as this process sees it into one of a process with that
// root.
func inRoot(path, root string) string {
	path = strings.ToValidUTF8(path, "\uFFFD")
	if strings.HasPrefix(path, "/"+memoryFile) {
		return strings.TrimSuffix(path[1:], deletedMark)
	}
	if root == "/" || root == "" || !strings.HasPrefix(path, "/") {
		return path
	}
	rest, ok := strings.CutPrefix(path, root)
	switch {
	case ok && rest == "":
		return "/"
	case ok && strings.HasPrefix(rest, "/"):
		return rest
	}
	return "(unreachable)" + path
}
