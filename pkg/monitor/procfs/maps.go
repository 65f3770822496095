package procfs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
)

// Mapping is a line of /proc/PID/maps.
type Mapping struct {
	Start, End uint64
	// Offset of Start in the file.
	Offset uint64
	// Executable is true when the memory may be executed.
	Executable bool
	// Major and Minor number the device, Inode the file on it; it is 0 of memory
	// without a file.
	Major, Minor uint32
	Inode        uint64
	// Name is what the kernel calls it, "" when it has no name.
	Name string
}

// MapFile is the name of a mapping in /proc/PID/map_files, where the kernel
// writes addresses without the zeros that they begin with in its list.
func (m Mapping) MapFile() string { return fmt.Sprintf("%x-%x", m.Start, m.End) }

// Mappings reads the format of /proc/PID/maps up to its end, or to where it
// can't be read.
func Mappings(r io.Reader) iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		s := bufio.NewScanner(r)
		s.Split(splitLines)
		for s.Scan() {
			if m, ok := ParseMapping(s.Text()); ok && !yield(m) {
				return
			}
		}
	}
}

// splitLines is bufio.ScanLines for names that may end with a carriage return.
func splitLines(data []byte, end bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if end && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// ParseMapping reads one line of /proc/PID/maps; it reports false for what is
// none. The kernel writes a newline in a name as \012.
func ParseMapping(line string) (Mapping, bool) {
	// "start-end perms offset major:minor inode   name"
	f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
	if len(f) < 5 || len(f[1]) < 4 {
		return Mapping{}, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	major, minor, _ := strings.Cut(f[3], ":")
	m := Mapping{Executable: f[1][2] == 'x'}
	var maj, min uint64
	for _, n := range []struct {
		text string
		base int
		to   *uint64
	}{
		{from, 16, &m.Start}, {to, 16, &m.End}, {f[2], 16, &m.Offset}, {major, 16, &maj}, {minor, 16, &min}, {f[4], 10, &m.Inode},
	} {
		v, err := strconv.ParseUint(n.text, n.base, 64)
		if err != nil {
			return Mapping{}, false
		}
		*n.to = v
	}
	m.Major, m.Minor = uint32(maj), uint32(min)
	if len(f) == 6 {
		m.Name = strings.ReplaceAll(strings.TrimLeft(f[5], " "), `\012`, "\n")
	}
	return m, true
}
