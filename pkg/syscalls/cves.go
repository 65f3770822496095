package syscalls

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed cves.txt
var cveTable string

// Impact says what a hole of the kernel gives who uses it.
type Impact string

// Impacts of holes.
const (
	Privilege Impact = "privilege"
	Leak      Impact = "leak"
	Crash     Impact = "crash"
)

// CVE is a hole of the kernel that was reached through system calls.
type CVE struct {
	ID     string
	Impact Impact
	// Introduced and Fixed are mainline versions (5.8): the first that had it,
	// "" when it is older than the kernel's history or nobody knows, and the
	// first without it. Distributions repair older versions, too.
	Introduced, Fixed string
	// Commit is the upstream commit that repaired it, "" when it isn't known.
	Commit string
	// Calls are names of calls by which it was reached, sorted.
	Calls []string
	// Summary says what was wrong.
	Summary string
}

// Source is where the facts can be looked up.
func (c CVE) Source() string { return "https://nvd.nist.gov/vuln/detail/" + c.ID }

// Affects reports whether a mainline kernel of a version (6.1.0-13-amd64
// counts as 6.1) has the hole. It knows nothing of repairs in older versions.
func (c CVE) Affects(kernel string) bool {
	v, ok := version(kernel)
	if !ok {
		return true
	}
	if from, ok := version(c.Introduced); ok && slices.Compare(v, from) < 0 {
		return false
	}
	fixed, ok := version(c.Fixed)
	return !ok || slices.Compare(v, fixed) < 0
}

// version reads the two numbers that mainline versions have, three before 3.0.
func version(s string) ([]int, bool) {
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); i >= 0 {
		s = s[:i]
	}
	n := 2
	if strings.HasPrefix(s, "2.") {
		n = 3
	}
	var out []int
	for f := range strings.SplitSeq(s, ".") {
		v, err := strconv.Atoi(f)
		if err != nil {
			return nil, false
		}
		if out = append(out, v); len(out) == n {
			break
		}
	}
	return out, len(out) > 1
}

var (
	cves   = sync.OnceValue(func() []CVE { return readCVEs(cveTable) })
	cvesOf = sync.OnceValue(func() map[string][]CVE { // key: name of a call
		m := map[string][]CVE{}
		for _, c := range cves() {
			for _, call := range c.Calls {
				m[call] = append(m[call], c)
			}
		}
		return m
	})
)

func readCVEs(text string) []CVE {
	var out []CVE
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) != 7 {
			continue // a test has looked at the table
		}
		known := func(s string) string {
			if s == "-" {
				return ""
			}
			return s
		}
		calls := strings.Split(f[5], ",")
		slices.Sort(calls)
		out = append(out, CVE{ID: f[0], Impact: Impact(f[1]), Introduced: known(f[2]), Fixed: known(f[3]), Commit: known(f[4]), Calls: calls, Summary: f[6]})
	}
	return out
}

// CVEs lists the holes that are known, the oldest first. The caller owns the
// slice.
func CVEs() []CVE { return slices.Clone(cves()) }

// CVEsOf lists the holes that were reached by a call, the oldest first. The
// caller owns the slice.
func CVEsOf(call string) []CVE { return slices.Clone(cvesOf()[call]) }

// Risk weighs what was found behind a call: 3 for each hole that gave
// privileges, 1 for each other. It says where the kernel was weak, not where
// it is.
func Risk(call string) int {
	risk := 0
	for _, c := range cvesOf()[call] {
		if c.Impact == Privilege {
			risk += 3
		} else {
			risk++
		}
	}
	return risk
}
