package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// span is a block of instructions of a file, by the offsets of its first and
// its last instruction.
type span struct {
	path        string // "" when the code lies in no file
	first, last uint64
}

// entry is a call as one instruction made it, the arguments that choose what it
// does included; the others are 0.
type entry struct {
	path   string
	offset uint64
	nr     int
	args   [6]uint32
}

// execution is what was executed of one image, by all processes that ran it.
type execution struct {
	image  string
	blocks map[span]bool
	calls  map[entry]bool
	// left are files that it executed and that nothing was recorded of.
	left map[string]bool
}

// readRecords reads what the plugin recorded in a folder, by image.
func readRecords(dir string) ([]*execution, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.record"))
	if err != nil {
		return nil, err
	}
	byImage := map[string]*execution{}
	var out []*execution
	for _, name := range files {
		text, err := readRecord(name)
		if err != nil {
			return nil, err
		}
		image, err := readLines(text, byImage)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if image != nil && !slices.Contains(out, image) {
			out = append(out, image)
		}
	}
	return out, nil
}

// readRecord returns the used part of a record.
func readRecord(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var head [8]byte
	if _, err := f.Read(head[:]); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	used := binary.LittleEndian.Uint64(head[:])
	if used > uint64(st.Size())-8 {
		return nil, fmt.Errorf("%s is full: something was lost", name)
	}
	text := make([]byte, used)
	if _, err := f.ReadAt(text, 8); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return text, nil
}

// readLines takes in the lines of a record and returns the image that it is of;
// nil when there is none.
func readLines(text []byte, images map[string]*execution) (*execution, error) {
	var e *execution
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		kind, rest, _ := strings.Cut(s.Text(), " ")
		if e == nil && kind != "x" {
			return nil, fmt.Errorf("it begins with %q", s.Text())
		}
		switch kind {
		case "x":
			if e = images[rest]; e == nil {
				e = &execution{image: rest, blocks: map[span]bool{}, calls: map[entry]bool{}, left: map[string]bool{}}
				images[rest] = e
			}
		case "n":
			e.left[rest] = true
		case "b":
			var b span
			if _, err := fmt.Sscanf(rest, "%x %x", &b.first, &b.last); err != nil {
				return nil, fmt.Errorf("block %q: %w", rest, err)
			}
			b.path = path(rest, 2)
			e.blocks[b] = true
		case "c":
			c := entry{path: path(rest, 8)}
			a := &c.args
			if _, err := fmt.Sscanf(rest, "%x %d %x %x %x %x %x %x", &c.offset, &c.nr, &a[0], &a[1], &a[2], &a[3], &a[4], &a[5]); err != nil {
				return nil, fmt.Errorf("call %q: %w", rest, err)
			}
			e.calls[c] = true
		}
	}
	return e, s.Err()
}

// path is what follows n words, "" for what is no file by which code comes:
// memory, with a name (memfd_create) or without.
func path(line string, n int) string {
	for range n {
		_, line, _ = strings.Cut(line, " ")
	}
	if line == "-" || strings.HasPrefix(line, "/memfd:") {
		return ""
	}
	return line
}
