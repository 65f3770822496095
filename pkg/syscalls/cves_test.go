package syscalls

import (
	"regexp"
	"strings"
	"testing"
)

// TestCVETable looks at every line: facts have the form that they must have,
// and every call is one that a kernel has.
func TestCVETable(t *testing.T) {
	id := regexp.MustCompile(`^CVE-\d{4}-\d{4,7}$`)
	commit := regexp.MustCompile(`^[0-9a-f]{12}$`)
	seen := map[string]bool{}
	lines := 0
	for line := range strings.Lines(cveTable) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		lines++
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 7 {
			t.Errorf("%d fields: %q", len(f), line)
			continue
		}
		c := readCVEs(line)[0]
		if !id.MatchString(c.ID) || seen[c.ID] {
			t.Errorf("%s: no id, or there twice", c.ID)
		}
		seen[c.ID] = true
		if c.Impact != Privilege && c.Impact != Leak && c.Impact != Crash {
			t.Errorf("%s: impact %q", c.ID, c.Impact)
		}
		if c.Commit != "" && !commit.MatchString(c.Commit) {
			t.Errorf("%s: commit %q", c.ID, c.Commit)
		}
		if _, ok := version(c.Fixed); !ok {
			t.Errorf("%s: fixed in %q", c.ID, c.Fixed)
		}
		if _, ok := version(c.Introduced); c.Introduced != "" && (!ok || c.Affects(c.Fixed) || !c.Affects(c.Introduced)) {
			t.Errorf("%s: from %q to %q", c.ID, c.Introduced, c.Fixed)
		}
		if c.Summary == "" || strings.HasSuffix(c.Summary, ".") {
			t.Errorf("%s: summary %q", c.ID, c.Summary)
		}
		for _, call := range c.Calls {
			_, a := Number(AMD64, call)
			if _, b := Number(I386, call); !a && !b {
				t.Errorf("%s: no kernel has the call %q", c.ID, call)
			}
		}
	}
	if lines < 150 || lines != len(CVEs()) {
		t.Errorf("%d lines, %d holes", lines, len(CVEs()))
	}
}

func TestAffects(t *testing.T) {
	var pipe CVE
	for _, c := range CVEsOf("splice") {
		if c.ID == "CVE-2022-0847" {
			pipe = c
		}
	}
	for kernel, want := range map[string]bool{
		"5.7.19": false, "5.8": true, "5.16.11-arch1-1": true, "5.17": false, "6.1.0-13-amd64": false, "4.19": false, "": true, "unknown": true,
	} {
		if got := pipe.Affects(kernel); got != want {
			t.Errorf("Affects(%q) = %v, want %v: %+v", kernel, got, want, pipe)
		}
	}
	old := CVE{Introduced: "2.6.30", Fixed: "2.6.36"}
	if old.Affects("2.6.29") || !old.Affects("2.6.32-5-amd64") || old.Affects("2.6.36.1") {
		t.Error("versions before 3.0 have three numbers")
	}
}

func TestRisk(t *testing.T) {
	if Risk("bpf") <= Risk("kill") || Risk("kill") == 0 || Risk("getpid") != 0 {
		t.Errorf("bpf %d, kill %d, getpid %d", Risk("bpf"), Risk("kill"), Risk("getpid"))
	}
}
