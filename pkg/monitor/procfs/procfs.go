// Package procfs reads single facts about processes out of /proc (proc(5)).
// They speak of whatever process has the number at that moment; package proc
// pins one.
package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stat returns the fields of /proc/PID/stat from the third, the state, on; none
// when the process has ended.
func Stat(pid int32) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return StatFields(text)
}

// StatFields is Stat for the content of the file: "PID (comm) state ppid ...",
// where comm may hold anything, brackets too.
func StatFields(text []byte) []string {
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// Parent returns the number of a process's parent, which is 0 for the first
// ones; false when the process has ended.
func Parent(pid int32) (int32, bool) { return ParentIn(Stat(pid)) }

// ParentIn is Parent for the fields of Stat.
func ParentIn(fields []string) (int32, bool) {
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.ParseInt(fields[1], 10, 32)
	return int32(parent), err == nil
}

// Namespace returns the inode number of a process's namespace ("mnt", "pid",
// ...), 0 when it can't be read.
func Namespace(pid int32, kind string) uint64 {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st) != nil {
		return 0
	}
	return st.Ino
}

// Interpreter is what the "#!" line of a script names, by the script's first
// bytes; "" for other files.
func Interpreter(head []byte) string {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return ""
	}
	return words[0]
}
