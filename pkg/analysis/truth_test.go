package analysis_test

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/confinehq/confine/pkg/analysis"
)

// traced matches one line of strace -f: the call's name.
var traced = regexp.MustCompile(`^(?:\d+ +)?([a-z0-9_]+)\(`)

// TestStraceIsThere says that the cases are run, which they aren't without it.
func TestStraceIsThere(t *testing.T) {
	if _, err := exec.LookPath("strace"); err == nil {
		return
	}
	if os.Getenv("CONFINE_REQUIRE_ALL") != "" {
		t.Fatal("strace is not installed, and nothing may be left out")
	}
	t.Skip("strace is not installed: the cases are analysed and not run")
}

// groundTruth runs a case that may be run, and returns what it really did that
// its result lacks.
func (c *testCase) groundTruth(t *testing.T, w *world, r *analysis.Result) error {
	t.Helper()
	strace, err := exec.LookPath("strace")
	run := cmp.Or(c.one("run"), c.one("run32"))
	if run == "" || err != nil {
		return nil
	}
	calls := callNames(r)
	args := strings.Fields(strings.ReplaceAll(run, "$OUT", filepath.Join(w.dir, c.out())))
	if c.one("run32") != "" {
		if args = run32(t, args); args == nil {
			return nil
		}
	}
	missing := slices.DeleteFunc(trace(t, strace, args), func(name string) bool {
		_, ok := calls[name]
		return ok
	})
	if len(missing) > 0 {
		return fmt.Errorf("UNSOUND: the program makes %v, which the result lacks", missing)
	}
	return nil
}

// run32 is how a 32-bit program is run, with its loader in front when it has one;
// nil where the kernel doesn't run such programs.
func run32(t *testing.T, args []string) []string {
	t.Helper()
	loader := filepath.Join(libraries32, "ld-linux.so.2")
	if err := exec.CommandContext(t.Context(), loader, "--version").Run(); errors.Is(err, syscall.ENOEXEC) {
		t.Log("the kernel runs no 32-bit programs")
		return nil
	}
	f, err := elf.Open(args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		args = append([]string{loader, "--library-path", libraries32}, args...)
	}
	return args
}

// trace runs a program and returns the names of the calls that it makes, the
// first execve left out, which is strace's.
func trace(t *testing.T, strace string, args []string) []string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.CommandContext(t.Context(), strace, append([]string{"-f", "-qq", "-o", log}, args...)...)
	if msg, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("strace: %v\n%s", err, msg)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, l := range strings.Split(string(text), "\n") {
		if m := traced.FindStringSubmatch(l); m != nil && i > 0 {
			names = append(names, m[1])
		}
	}
	if len(names) < 2 {
		t.Fatalf("strace saw nothing: %s", text)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
