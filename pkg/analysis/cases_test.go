package analysis_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/rootfs"
	"github.com/confinehq/confine/pkg/syscalls"
)

// A case is testdata/cases/NAME.txtar: sources, and before them lines of prose
// and of "key: value". With "key[VARIANT]" a line is for that variant only.
//
//	needs: COMMAND...        tools besides gcc ("!gcc" first: without gcc)
//	variant: NAME FLAGS      one program of several; $FLAGS in build lines
//	build: COMMAND           in a folder that holds the sources; makes $OUT/prog.
//	                         mark.h is there, too; $CASE is $OUT in the root, $CC
//	                         and $CXX are gcc and g++; clang and clang++ in
//	                         variants whose names begin with clang, and $CC is
//	                         musl-gcc in those that begin with musl
//	program: PATH            what to analyse instead of $OUT/prog
//	env: KEY=VALUE           of the program; $OUT is its folder in the root
//	load: PATH               a file that it loads, relative to $OUT
//	follow: yes              add the programs that it executes
//	must: CALL...            calls that it can make
//	never: CALL...           calls that are in its files and that it can't make
//	args: CALL.N VALUE...    the values that argument N of a call can have, as
//	                         syscalls.Describe writes them; none: any
//	objects: NAME...         files that are in the result
//	no-objects: NAME...      files that aren't
//	incomplete: KIND...      all kinds of what is missing; "any" is not to ask
//	notes: KIND...           kinds that are among the notes
//	compat: yes              32-bit code is reachable
//	pointers: CALL N         how many pointers in data the call needs
//	chain: CALL STEPS        the end of the call's shortest chain: "EDGE NAME, ..."
//	run: ARGS                it may be run under strace; $OUT as above
//	run32: ARGS              the same for a 32-bit program
//	on-unresolved: WAY       what to do about code that can make any call
//	error: TEXT              there is no result: the error has this text
//	skip-known: WHY          a defect that is known: the case must still fail
type testCase struct {
	name, variant, flags string
	lines                []line
	files                []txtar.File
}

type line struct{ key, variant, value string }

// all returns the values of a key, those of the variant included.
func (c *testCase) all(key string) []string {
	var out []string
	for _, l := range c.lines {
		if l.key == key && (l.variant == "" || l.variant == c.variant) {
			out = append(out, l.value)
		}
	}
	return out
}

// one returns the last value of a key, the variant's if it has one.
func (c *testCase) one(key string) string {
	v := ""
	for _, l := range c.lines {
		if l.key == key && l.variant == "" {
			v = l.value
		}
	}
	for _, l := range c.lines {
		if l.key == key && l.variant != "" && l.variant == c.variant {
			v = l.value
		}
	}
	return v
}

func (c *testCase) words(key string) []string { return strings.Fields(strings.Join(c.all(key), " ")) }

func (c *testCase) id() string { return strings.TrimSuffix(c.name+"/"+c.variant, "/") }

var keys = []string{
	"needs", "variant", "build", "program", "env", "load", "follow", "must", "never", "args", "objects", "no-objects",
	"incomplete", "notes", "compat", "pointers", "chain", "run", "skip-known", "on-unresolved", "error", "run32",
}

func readCases(t *testing.T) []*testCase {
	t.Helper()
	names, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var out []*testCase
	for _, name := range names {
		ar, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var lines []line
		for text := range strings.Lines(string(ar.Comment)) {
			key, value, ok := strings.Cut(strings.TrimSpace(text), ":")
			key, variant, _ := strings.Cut(strings.TrimSuffix(key, "]"), "[")
			if !ok || !slices.Contains(keys, key) {
				if ok && !strings.Contains(key, " ") {
					t.Fatalf("%s: unknown key %q", name, key)
				}
				continue
			}
			lines = append(lines, line{key, variant, strings.TrimSpace(value)})
		}
		base := strings.TrimSuffix(filepath.Base(name), ".txtar")
		many := false
		for _, l := range lines {
			if l.key == "variant" {
				many = true
				v, flags, _ := strings.Cut(l.value, " ")
				out = append(out, &testCase{base, v, flags, lines, ar.Files})
			}
		}
		if !many {
			out = append(out, &testCase{base, "", "", lines, ar.Files})
		}
	}
	return out
}

const markH = `
#include <sys/syscall.h>
/* MARK(name) is a system call that no C library makes by itself: in the result,
   it says that the code around it is reachable. All arguments are 0. */
#define MARK(name) RAW(SYS_##name)
#ifdef __i386__
#define RAW(nr) ({ long r_; __asm__ volatile("int $0x80" : "=a"(r_) : "0"((long)(nr)), "b"(0L), "c"(0L), "d"(0L) : "memory"); r_; })
#else
#define RAW(nr) ({ long r_; __asm__ volatile("syscall" : "=a"(r_) : "0"((long)(nr)), "D"(0L), "S"(0L), "d"(0L) : "rcx", "r11", "memory"); r_; })
#endif
/* KEEP keeps what nobody calls. */
#define KEEP __attribute__((used, noinline))
#define NOINLINE __attribute__((noinline))
`

// world is the root in which all cases stand: the C libraries and the shell of
// this machine, and a folder for each case.
type world struct {
	dir   string
	root  rootfs.Root
	cache memory
}

// memory is a facts cache.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (c *memory) Get(_ context.Context, key string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[key], nil
}

func (c *memory) Put(_ context.Context, key string, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string][]byte{}
	}
	c.m[key] = b
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	for _, name := range []string{"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux.so.2"} {
		if b, err := os.ReadFile(filepath.Join(libraries32, name)); err == nil {
			to := "/lib/i386-linux-gnu"
			if name == "ld-linux.so.2" {
				to = "/lib"
			}
			w.add(t, filepath.Join(to, name), b)
		}
	}
	for _, pattern := range []string{
		"/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1", "/etc/ld-musl-x86_64.path", "/bin/sh",
		"/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libm.so.6", "/lib/x86_64-linux-gnu/libgcc_s.so.1",
		"/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/lib/x86_64-linux-musl/libc.so",
	} {
		b, err := os.ReadFile(pattern)
		if err != nil {
			continue // a compiler that isn't there needs it
		}
		w.add(t, pattern, b)
	}
	d, err := rootfs.NewDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	w.root = d
	return w
}

// libraries32 is where the cross compiler for i386 has its libraries.
const libraries32 = "/usr/i686-linux-gnu/lib"

// add writes a file to the root.
func (w *world) add(t *testing.T, path string, b []byte) {
	t.Helper()
	to := filepath.Join(w.dir, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// out is the case's folder in the root.
func (c *testCase) out() string { return "/cases/" + c.id() }

// compilers are those for C and C++, by what a variant is named after.
func (c *testCase) compilers() (cc, cxx string) {
	switch {
	case strings.HasPrefix(c.variant, "clang"):
		return "clang", "clang++"
	case strings.HasPrefix(c.variant, "musl"):
		return "musl-gcc", "g++"
	}
	return "gcc", "g++"
}

// need skips a case whose tools aren't there.
func (c *testCase) need(t *testing.T) {
	t.Helper()
	tools := c.words("needs")
	if !slices.Contains(tools, "!gcc") {
		cc, _ := c.compilers()
		tools = append(tools, cc)
	}
	if strings.Contains(c.flags, "-fuse-ld=lld") {
		tools = append(tools, "ld.lld")
	}
	for _, tool := range tools {
		if strings.HasPrefix(tool, "!") {
			continue
		}
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CONFINE_REQUIRE_ALL") != "" {
			t.Fatalf("%s is not installed, and nothing may be left out", tool)
		}
		t.Skipf("%s is not installed", tool)
	}
}

func (c *testCase) build(t *testing.T, w *world) {
	t.Helper()
	src := t.TempDir()
	files := append(slices.Clone(c.files), txtar.File{Name: "mark.h", Data: []byte(markH)})
	for _, f := range files {
		p := filepath.Join(src, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(w.dir, c.out())
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	cc, cxx := c.compilers()
	for _, b := range c.all("build") {
		cmd := exec.Command("sh", "-ec", b)
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "OUT="+out, "CASE="+c.out(), "FLAGS="+c.flags, "CC="+cc, "CXX="+cxx, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", b, err, msg)
		}
	}
}

// analyze returns nil where the error was the one that is wanted.
func (c *testCase) analyze(t *testing.T, w *world, check *checker) *analysis.Result {
	t.Helper()
	o := analysis.Options{
		NoFollow: c.one("follow") != "yes", Cache: &w.cache, Parallel: 1,
		OnUnresolved: analysis.Unresolved(c.one("on-unresolved")), Surplus: len(c.all("pointers")) > 0,
	}
	check.watch(&o)
	p := analysis.Program{Path: c.out() + "/prog"}
	if v := c.one("program"); v != "" {
		p.Path = strings.ReplaceAll(v, "$OUT", c.out())
	}
	for _, v := range c.words("env") {
		p.Env = append(p.Env, strings.ReplaceAll(v, "$OUT", c.out()))
	}
	for _, v := range c.words("load") {
		p.Load = append(p.Load, c.out()+"/"+v)
	}
	r, err := analysis.Analyze(t.Context(), analysis.Request{
		Root: w.root, Programs: []analysis.Program{p},
		Options: o,
	})
	if want := c.one("error"); want != "" {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("error %v, want one with %q", err, want)
		}
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func callNames(r *analysis.Result) map[string]analysis.Syscall {
	out := map[string]analysis.Syscall{}
	for _, s := range r.Syscalls {
		out[s.Name] = s
	}
	return out
}

func kinds(list []analysis.Issue) []string {
	m := map[string]bool{}
	for _, i := range list {
		m[i.Kind] = true
	}
	return slices.Sorted(maps.Keys(m))
}

// verify returns what a result lacks and what it has too much.
func (c *testCase) verify(r *analysis.Result) error {
	var bad []error
	wrong := func(format string, args ...any) { bad = append(bad, fmt.Errorf(format, args...)) }
	calls := callNames(r)
	for _, name := range c.words("must") {
		s, ok := calls[name]
		switch {
		case !ok:
			wrong("UNSOUND: %s can be made and isn't in the result", name)
		case len(s.Reasons) == 0 || s.Reasons[0].Kind == "site" && len(s.Reasons[0].Chain) == 0 && !r.Compat:
			wrong("%s has no reason", name)
		}
	}
	for _, name := range c.words("never") {
		if s, ok := calls[name]; ok {
			wrong("imprecise: %s can't be made and is in the result: %s", name, because(s))
		}
	}
	for _, text := range c.all("args") {
		name, want, _ := strings.Cut(text, " ")
		if got := describeArgs(r, calls, name); !slices.Equal(got, strings.Fields(want)) {
			wrong("argument %s can be %v, want %v", name, got, strings.Fields(want))
		}
	}
	for _, text := range c.all("pointers") {
		name, want, _ := strings.Cut(text, " ")
		i := slices.IndexFunc(r.Pointers, func(p analysis.Pointers) bool { return slices.Contains(p.Calls, name) })
		if i < 0 || fmt.Sprint(r.Pointers[i].Count) != want {
			wrong("%s doesn't need %s pointers: %+v", name, want, r.Pointers)
		}
	}
	if want := c.one("incomplete"); want != "any" {
		w := strings.Fields(want)
		slices.Sort(w)
		if got := kinds(r.Incomplete); !slices.Equal(got, w) {
			wrong("incomplete %v, want %v: %v", got, w, r.Incomplete)
		}
	}
	for _, k := range c.words("notes") {
		if !slices.Contains(kinds(r.Notes), k) {
			wrong("no note %s: %v", k, r.Notes)
		}
	}
	if want := c.one("compat") == "yes"; r.Compat != want {
		wrong("compat %v, want %v", r.Compat, want)
	}
	var paths []string
	for _, o := range r.Objects {
		paths = append(paths, o.Path)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(paths, func(p string) bool { return strings.HasSuffix(p, name) })
	}
	for _, name := range c.words("objects") {
		if !has(name) {
			wrong("object %s isn't among %v", name, paths)
		}
	}
	for _, name := range c.words("no-objects") {
		if has(name) {
			wrong("object %s is among %v", name, paths)
		}
	}
	return errors.Join(bad...)
}

// describeArgs names the values that an argument, CALL.N, can have.
func describeArgs(r *analysis.Result, calls map[string]analysis.Syscall, name string) []string {
	call, n, _ := strings.Cut(name, ".")
	index, err := strconv.ParseUint(n, 10, 8)
	if err != nil {
		return []string{err.Error()}
	}
	arch, _ := syscalls.ForPlatform(r.Platform)
	var out []string
	for _, a := range calls[call].Args {
		if a.Index == uint(index) {
			out = append(out, syscalls.Describe(arch, call, int(index), a.ValueTwo))
		}
	}
	return out
}

// because prints the first reason of a call.
func because(s analysis.Syscall) string {
	var out []string
	for _, f := range s.Reasons[0].Chain {
		out = append(out, fmt.Sprintf("%s %s(%#x) %s", f.Edge, f.Symbol, f.Address, filepath.Base(f.Object)))
	}
	return s.Reasons[0].Kind + " " + s.Reasons[0].Detail + ": " + strings.Join(out, " -> ")
}

// TestCases analyses every case. Those that may be run are then run under
// strace, where it is installed: every call that it sees must be in the result.
func TestCases(t *testing.T) {
	w := newWorld(t)
	for _, c := range readCases(t) {
		t.Run(c.id(), func(t *testing.T) {
			t.Parallel()
			c.need(t)
			c.build(t, w)
			var check checker
			r := c.analyze(t, w, &check)
			if r == nil {
				return // as it should be
			}
			if err := check.result(r); err != nil {
				t.Error(err)
			}
			err := errors.Join(c.verify(r), c.chains(r), c.groundTruth(t, w, r))
			why := c.one("skip-known")
			switch {
			case why == "" && err != nil:
				t.Error(err)
			case why != "" && err == nil:
				t.Errorf("this holds now: take the skip-known line out (%s)", why)
			case why != "":
				t.Logf("known: %s\n%v", why, err)
			}
		})
	}
}
