// Package storm executes programs at a chosen rate, in a container or on the
// node, and knows afterwards what it executed: the truth that a monitor's
// events are compared with.
//
// The storm itself is a small static program without a C library (storm.c),
// compiled for both architectures and part of the program that uses this
// package, so that it needs nothing of the image that it runs in.
package storm

//go:generate ./compile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
)

// Limits of a plan; the first is MAX_FILES of storm.c.
const (
	maxFiles = 65536
	maxPath  = 4095 // PATH_MAX without the NUL
	stepSize = 250  // STEP_SIZE of storm.c
)

// Program is the name of the storm's own file in its folder.
const Program = "storm"

// ErrArchitecture says that there is no storm for this machine.
var ErrArchitecture = errors.New("there is no exec storm for this architecture")

// Plan says what a storm executes and how fast.
type Plan struct {
	// Dir is the folder as the storm sees it.
	Dir string
	// Token begins the name of every file; it tells one storm's from another's.
	Token string
	// Rate in executions a second; 0 is as fast as it goes.
	Rate uint32
	// Count ends the storm when it is reached, if it isn't 0; the last process
	// tree may go a little above it.
	Count uint64
	// Time ends the storm when it is over, if it isn't 0.
	Time time.Duration
	// Jobs is how many processes execute at once, at least 1.
	Jobs int
	// Names is how many files are executed in turn, at least 1.
	Names int
	// Longs is how many files with paths near the limit there are.
	Longs int
	// Depth of process trees whose members all execute; 0 for none.
	Depth int
	// Threads is how many threads a process has whose last one executes; 0 for
	// none.
	Threads int
}

// Default is a mixture of everything: short ones, long paths, deep trees and
// threads.
func Default(dir, token string) Plan {
	return Plan{Dir: dir, Token: token, Jobs: 4, Names: 256, Longs: 4, Depth: 12, Threads: 16}
}

// check says what is wrong with a plan.
func (p Plan) check() error {
	switch {
	case len(program) == 0:
		return ErrArchitecture
	case !path.IsAbs(p.Dir) || p.Token == "" || strings.ContainsRune(p.Token, '/'):
		return fmt.Errorf("storm: folder %q and token %q name no files", p.Dir, p.Token)
	case p.Jobs < 1 || p.Names < 1 || p.Longs < 0 || p.Depth < 0 || p.Threads < 0 || p.Threads > 64:
		return errors.New("storm: it needs at least one job and one name, and 64 threads at most")
	case p.Names+p.Longs+p.Depth+1 > maxFiles:
		return fmt.Errorf("storm: more than %d files", maxFiles)
	case p.Count == 0 && p.Time <= 0:
		return errors.New("storm: it would never end")
	}
	return nil
}

// steps is how many folders with long names the long paths have: as many as
// fit.
func (p Plan) steps() int {
	room := maxPath - len(p.Dir) - len(p.Token) - len("/-l0000")
	return max(0, room/(stepSize+1))
}

// Args is the command line of the storm.
func (p Plan) Args() []string {
	n := func(v uint64) string { return strconv.FormatUint(v, 10) }
	return []string{
		path.Join(p.Dir, Program), "r", p.Dir, p.Token, n(uint64(p.Rate)), n(p.Count), n(uint64(p.Time.Milliseconds())),
		n(uint64(p.Jobs)), n(uint64(p.Names)), n(uint64(p.Longs)), n(uint64(p.steps())), n(uint64(p.Depth)), n(uint64(p.Threads)),
	}
}

// file is one file of a plan: its kind as the storm reports it, and its index.
type file struct {
	kind  string
	index int
}

// path is where the storm sees the file.
func (p Plan) path(f file) string {
	dir := p.Dir
	if f.kind == "l" {
		dir += strings.Repeat("/"+strings.Repeat("x", stepSize), p.steps())
	}
	return dir + "/" + p.Token + "-" + f.kind + strconv.Itoa(f.index)
}

// count is how many files of a kind there are.
func (p Plan) count(kind string) int {
	switch kind {
	case "n":
		return p.Names
	case "l":
		return p.Longs
	case "t":
		return p.Depth
	case "h":
		return min(p.Threads, 1)
	default:
		return 0
	}
}

func (p Plan) files() []file {
	var all []file
	for _, kind := range []string{"n", "l", "t", "h"} {
		for i := range p.count(kind) {
			all = append(all, file{kind, i})
		}
	}
	return all
}

// Truth is what a storm executed.
type Truth struct {
	// Executed counts successful executions by path; files that weren't
	// executed are left out.
	Executed map[string]uint64
	// Failed is how many steps didn't go as planned, so that what they executed
	// isn't known.
	Failed uint64
	// Time from the first to the last.
	Time time.Duration
}

// Total is the sum of all executions.
func (t *Truth) Total() uint64 {
	var sum uint64
	for _, n := range t.Executed {
		sum += n
	}
	return sum
}

// maxReport bounds what is read of a storm's report, in bytes: a container may
// write anything there.
const maxReport = maxFiles * 32

// ReadTruth reads what the storm of a plan wrote. A report that isn't whole is
// an error.
func (p Plan) ReadTruth(r io.Reader) (*Truth, error) {
	t := &Truth{Executed: map[string]uint64{}}
	known := map[file]bool{}
	var timed, failed bool
	for s := bufio.NewScanner(io.LimitReader(r, maxReport)); s.Scan(); {
		words := strings.Fields(s.Text())
		var err error
		switch {
		case len(words) == 1 && words[0] == "end" && timed && failed && len(known) == len(p.files()):
			return t, nil
		case len(words) == 2 && words[0] == "failed" && !failed:
			t.Failed, err = strconv.ParseUint(words[1], 10, 64)
			failed = true
		case len(words) == 2 && words[0] == "ns" && !timed:
			var ns int64
			ns, err = strconv.ParseInt(words[1], 10, 64)
			t.Time, timed = time.Duration(ns), true
		case len(words) == 3:
			err = p.readCount(t, known, words)
		default:
			err = errors.New("it is no line of a storm")
		}
		if err != nil {
			return nil, fmt.Errorf("read the storm's report: line %.80q: %w", s.Text(), err)
		}
	}
	return nil, errors.New("read the storm's report: it breaks off")
}

// readCount takes one file's line.
func (p Plan) readCount(t *Truth, known map[file]bool, words []string) error {
	i, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(words[2], 10, 32)
	if err != nil {
		return err
	}
	f := file{words[0], i}
	if i < 0 || i >= p.count(f.kind) || known[f] {
		return errors.New("no such file is left")
	}
	known[f] = true
	if n > 0 {
		t.Executed[p.path(f)] = n
	}
	return nil
}
