package proc

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

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
	// start-end perms offset major:minor inode path, the path after blanks
	f := strings.SplitN(line, " ", 6)
	if len(f) < 6 || len(f[1]) < 4 || f[1][2] != 'x' || f[4] == "0" {
		return File{}, false
	}
	inode, err := strconv.ParseUint(f[4], 10, 64)
	if err != nil {
		return File{}, false
	}
	major, minor, _ := strings.Cut(f[3], ":")
	maj, err := strconv.ParseUint(major, 16, 32)
	if err != nil {
		return File{}, false
	}
	min, err := strconv.ParseUint(minor, 16, 32)
	if err != nil {
		return File{}, false
	}
	path := strings.TrimLeft(strings.TrimSuffix(f[5], "\n"), " ")
	path = strings.ReplaceAll(path, `\012`, "\n")
	if !strings.HasPrefix(path, "/") {
		return File{}, false
	}
	return File{Path: path, ID: &confinev1.FileId{Inode: inode, Device: unix.Mkdev(uint32(maj), uint32(min))}}, true
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
