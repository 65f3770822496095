package runner

import (
	"bytes"
	"strings"
	"sync"
)

// Limits of what is kept of a container's output.
const (
	tailLines = 20
	tailLine  = 512 // bytes
)

// Tail is an io.Writer that keeps the last lines written to it.
type Tail struct {
	mu    sync.Mutex
	lines []string
	part  []byte
}

// NewTail returns an empty Tail.
func NewTail() *Tail { return &Tail{} }

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	for {
		line, rest, found := bytes.Cut(p, []byte("\n"))
		if room := tailLine - len(t.part); room > 0 {
			t.part = append(t.part, line[:min(room, len(line))]...)
		}
		if !found {
			return n, nil
		}
		t.lines = append(t.lines, clean(t.part))
		if len(t.lines) > tailLines {
			t.lines = t.lines[len(t.lines)-tailLines:]
		}
		t.part, p = t.part[:0], rest
	}
}

// Lines returns the last lines, the unfinished one included.
func (t *Tail) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := append([]string(nil), t.lines...)
	if len(t.part) > 0 {
		out = append(out, clean(t.part))
	}
	return out
}

// clean makes a line fit for protobuf strings and terminals.
func clean(b []byte) string {
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}
