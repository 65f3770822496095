package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// Limits of the kernel: BINPRM_BUF_SIZE bytes of a script are looked at, and
// interpreters nest this deep.
const (
	scriptHead  = 256
	scriptDepth = 5
)

// script is an execution of a script as the kernel told it.
type script struct {
	pid    uint32
	asked  string   // as it was asked for
	path   string   // the same in the process's root
	interp string   // the last interpreter, as the last script names it
	args   []string // the first arguments of the new program
}

// nested lists the scripts between the one that was asked for and the last
// interpreter, outermost first, when its interpreters are scripts themselves.
//
// The kernel puts each interpreter, its one optional argument and the script's
// name before the other arguments, so that these hold the scripts, but don't
// tell an optional argument from a script's name. The scripts' own first lines
// do, unless the process is gone or they were changed: then everything that
// looks like a path is taken for a script.
func (s script) nested() []string {
	at := slices.Index(s.args[:min(len(s.args), 2*scriptDepth+1)], s.asked)
	if at == 1 && s.args[0] == s.interp {
		return nil
	}
	if found, ok := s.fromFiles(); ok || at < 1 {
		return found
	}
	var between []string
	for _, arg := range s.args[1:at] {
		if strings.HasPrefix(arg, "/") {
			between = append(between, arg)
		}
	}
	slices.Reverse(between)
	return between
}

// fromFiles follows the scripts' first lines; it reports false when they don't
// lead to the interpreter.
func (s script) fromFiles() (between []string, ok bool) {
	next := s.path
	for range scriptDepth {
		next = interpreterOf(s.pid, next)
		switch next {
		case "":
			return between, false
		case s.interp:
			return between, true
		}
		between = append(between, next)
	}
	return between, false
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
	return procfs.Interpreter(head[:n])
}
