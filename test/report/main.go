// Command report reads the output of 'go test -json' and prints what a person
// wants to see of it: a line for each package, everything that a failed test
// printed, and the reason of every skipped test. With -require-all a skipped
// test counts as a failed one, unless its reason begins with impossible.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// impossible begins the reason of a test that skips what this machine's
// processor or hypervisor can't do and no installation changes, and has checked
// what it could before.
const impossible = "impossible on this machine: "

// event is one line of test2json; see 'go doc test2json'.
type event struct {
	Action, Package, Test, Output string
	// ImportPath stands in for Package in events of the build.
	ImportPath string
	// Elapsed is in seconds.
	Elapsed float64
}

func main() {
	requireAll := flag.Bool("require-all", false, "count skipped tests as failed")
	flag.Parse()
	r := &report{w: os.Stdout, output: map[string][]string{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if !r.finish(*requireAll) {
		os.Exit(1)
	}
}

// report collects the results of a run.
type report struct {
	w io.Writer
	// output holds the lines of tests and packages that have not ended, by
	// package and test.
	output map[string][]string
	// skips and impossible hold "package.Test: reason".
	skips, impossible []string
	passed, failed    int
	// broken counts packages that failed as a whole (build, crash).
	broken int
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			// Not of the test runner: an error of the go command itself.
			fmt.Fprintln(r.w, lines.Text())
			continue
		}
		r.add(e)
	}
	return lines.Err()
}

func (r *report) add(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, r.output[key])
		} else {
			r.endTest(e, r.output[key])
		}
		delete(r.output, key)
	}
}

func (r *report) endTest(e event, output []string) {
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		for _, line := range output {
			if !strings.HasPrefix(line, "=== ") {
				fmt.Fprint(r.w, line)
			}
		}
	case "skip":
		why := reason(output)
		line := fmt.Sprintf("%s.%s: %s", e.Package, e.Test, why)
		if strings.Contains(why, impossible) {
			r.impossible = append(r.impossible, line)
		} else {
			r.skips = append(r.skips, line)
		}
	}
}

// reason is what a skipped test said.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = append(said, line)
	}
	return strings.Join(said, " ")
}

func (r *report) endPackage(e event, output []string) {
	if e.Action == "fail" {
		r.broken++
	}
	for _, line := range output {
		switch strings.TrimSpace(line) {
		case "PASS", "FAIL":
		default:
			fmt.Fprint(r.w, line)
		}
	}
	// What tests printed that never came to an end tells why.
	for key, lines := range r.output {
		if e.Action == "fail" && strings.HasPrefix(key, e.Package+"\x00") && !strings.HasSuffix(key, "\x00") {
			fmt.Fprint(r.w, strings.Join(lines, ""))
			delete(r.output, key)
		}
	}
}

// finish prints skips and totals and reports whether all is well.
func (r *report) finish(requireAll bool) bool {
	r.list("left out", r.skips)
	r.list("not to be had here", r.impossible)
	fmt.Fprintf(r.w, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skips)+len(r.impossible))
	switch {
	case r.failed > 0 || r.broken > 0:
		return false
	case r.passed == 0:
		fmt.Fprintln(r.w, "no test ran")
		return false
	case requireAll && len(r.skips) > 0:
		fmt.Fprintln(r.w, "nothing may be left out here (CONFINE_REQUIRE_ALL)")
		return false
	}
	return true
}

func (r *report) list(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	slices.Sort(lines)
	fmt.Fprintf(r.w, "\n%s:\n", title)
	for _, line := range lines {
		fmt.Fprintln(r.w, "  "+line)
	}
}
