package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of the kernel: BINPRM_BUF_SIZE bytes of a script are looked at, and
// interpreters nest this deep.
const (
	scriptHead  = 256
	scriptDepth = 5
)

// nestedScripts lists the scripts between the script that was asked for and
// the last interpreter, when its interpreters are scripts themselves. It reads
// the files after the fact, so it is best effort.
func nestedScripts(pid uint32, script, last string) []string {
	var between []string
	for range scriptDepth {
		next := interpreterOf(pid, script)
		if next == "" || next == last {
			return between
		}
		between = append(between, next)
		script = next
	}
	return between
}

// interpreterOf returns what the "#!" line of a script in a process's root
// names, or "".
func interpreterOf(pid uint32, script string) string {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, strings.TrimPrefix(script, "/"), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), script)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	head := make([]byte, scriptHead)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return ""
	}
	line, ok := bytes.CutPrefix(head[:n], []byte("#!"))
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
