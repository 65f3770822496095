package main

import (
	"bufio"
	"io"
	"path/filepath"
	"regexp"
	"strings"
)

// image is one executable that a trace saw run.
type image struct {
	made   map[string]bool // names of calls
	mapped map[string]bool // files mapped executable
	args   map[argument]map[uint32]bool
}

// trace is what one run did; key: the path of an executed file.
type trace map[string]*image

func (t trace) image(path string) *image {
	i := t[path]
	if i == nil {
		i = &image{made: map[string]bool{}, mapped: map[string]bool{}, args: map[argument]map[uint32]bool{}}
		t[path] = i
	}
	return i
}

// The shapes of strace's lines (strace -f -y -X raw -o).
var (
	lineRE    = regexp.MustCompile(`^(\d+) +(.*)$`)
	callRE    = regexp.MustCompile(`^([a-z0-9_]+)\(`)
	resumedRE = regexp.MustCompile(`^<\.\.\. ([a-z0-9_]+) resumed>(.*)$`)
	changedRE = regexp.MustCompile(`<pid changed to (\d+) \.\.\.>`)
	childRE   = regexp.MustCompile(`= (\d+)(?:<[^>]*>)?(?: /\* (\d+) in strace's PID NS \*/)?$`)
	execRE    = regexp.MustCompile(`^execve\("((?:[^"\\]|\\.)*)"`)
	execatRE  = regexp.MustCompile(`^execveat\([^<,]*(?:<([^>]*)>)?, "((?:[^"\\]|\\.)*)"`)
	mappedRE  = regexp.MustCompile(`, \d+<(/[^>]+)>`)
)

// reader turns lines into a trace.
type reader struct {
	dir     string // relative paths are relative to it
	out     trace
	current map[string]string   // the image of a process; key: pid
	pending map[string]string   // the begin of a call that goes on; key: pid
	early   map[string][]string // lines of a process whose parent isn't known yet; key: pid
	// parents of processes that began, and the pids that they have.
	pids map[string]bool
}

// readTrace reads what strace wrote about a program that was started in dir.
func readTrace(r io.Reader, dir string) (trace, map[string]bool, error) {
	t := &reader{dir: dir, out: trace{}, current: map[string]string{}, pending: map[string]string{}, early: map[string][]string{}, pids: map[string]bool{}}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	first := ""
	for s.Scan() {
		m := lineRE.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		t.pids[m[1]] = true
		if first == "" {
			first = m[1]
			t.current[first] = "" // strace's own child, which executes the program
		}
		t.line(m[1], m[2])
	}
	return t.out, t.pids, s.Err()
}

func (t *reader) line(pid, text string) {
	name, whole := "", text
	switch m := resumedRE.FindStringSubmatch(text); {
	case m != nil:
		name, whole = m[1], t.pending[pid]+m[2]
		delete(t.pending, pid)
	default:
		c := callRE.FindStringSubmatch(text)
		if c == nil {
			return
		}
		name = c[1]
		if i := strings.LastIndex(text, "<unfinished ...>"); i >= 0 {
			t.pending[pid] = text[:i]
		}
		if p := changedRE.FindStringSubmatchIndex(text); p != nil { // a thread executes: it gets the leader's pid
			t.pending[text[p[2]:p[3]]] = text[:p[0]]
		}
	}
	exe, known := t.current[pid]
	if !known {
		t.early[pid] = append(t.early[pid], text)
		return
	}
	t.call(pid, exe, name, whole)
}

func (t *reader) call(pid, exe, name, whole string) {
	if exe != "" {
		t.out.image(exe).made[name] = true
		t.out.image(exe).arguments(name, whole)
	}
	switch name {
	case "execve", "execveat":
		if strings.HasSuffix(strings.TrimSpace(whole), "= 0") {
			t.current[pid] = t.executed(exe, whole)
			t.out.image(t.current[pid])
		}
	case "clone", "clone3", "fork", "vfork":
		m := childRE.FindStringSubmatch(strings.TrimSpace(whole))
		if m == nil {
			return
		}
		child := m[1]
		if m[2] != "" {
			child = m[2]
		}
		t.born(child, exe)
	case "mmap":
		if m := mappedRE.FindStringSubmatch(whole); m != nil && exe != "" && executable(whole) {
			t.out.image(exe).mapped[m[1]] = true
		}
	}
}

// born gives a process its image, and takes in what it has done already.
func (t *reader) born(pid, exe string) {
	if _, known := t.current[pid]; known && len(t.early[pid]) == 0 {
		t.current[pid] = exe // a pid that is used again
		return
	}
	t.current[pid] = exe
	lines := t.early[pid]
	delete(t.early, pid)
	for _, l := range lines {
		t.line(pid, l)
	}
}

// executed is the path of the file that a call executes.
func (t *reader) executed(exe, whole string) string {
	p := ""
	if m := execRE.FindStringSubmatch(whole); m != nil {
		p = m[1]
	} else if m := execatRE.FindStringSubmatch(whole); m != nil {
		p = m[2]
		if p == "" || !filepath.IsAbs(p) && m[1] != "" {
			p = filepath.Join(m[1], p)
		}
	}
	if p == "/proc/self/exe" {
		return exe
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(t.dir, p)
	}
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real
	}
	return p
}
