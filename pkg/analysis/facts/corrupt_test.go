package facts

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// patience is far above what any object here takes: reaching it means that
// something doesn't come to an end.
const patience = time.Minute

// Bounds of what the facts of an object may take, as package analysis states
// them: a fixed part, and so much for each byte of the file.
const (
	boundSteps, boundStepsPerByte = 2 * minBudget, 4 * budgetPerByte
	boundAlloc, boundAllocPerByte = 256 << 20, 256
)

// outcome is what became of one object.
type outcome struct {
	// err is why it was rejected, lacking whether something is said to be missing.
	err     error
	lacking bool
	// steps were interpreted, alloc bytes allocated on the way, whether or not
	// they were free again.
	steps, alloc int
}

// allocated is how many bytes this process has allocated in its life.
func allocated() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.TotalAlloc)
}

// extract reads an object that may be broken in any way.
func extract(t *testing.T, data []byte) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before := allocated()
	o, err := Extract(ctx, data)
	out := outcome{err: err, alloc: allocated() - before}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		t.Errorf("an object of %d bytes takes longer than %v", len(data), patience)
		return out
	case err != nil:
		if !errors.Is(err, object.ErrMalformed) && !errors.Is(err, object.ErrNotELF) && !errors.Is(err, object.ErrUnsupported) && !errors.Is(err, object.ErrTooLarge) {
			t.Errorf("an error that callers don't know: %v", err)
		}
		return out
	}
	out.lacking = len(o.Facts.Warnings) > 0
	if o.codeSize > 0 {
		out.steps = o.fullBudget() - o.budget + o.argSteps
	}
	if limit := boundSteps + boundStepsPerByte*len(data); out.steps > limit {
		t.Errorf("%d instructions were interpreted for an object of %d bytes, the bound is %d", out.steps, len(data), limit)
	}
	for _, w := range o.Facts.Invariants() {
		t.Error(w)
	}
	if g, err := Decode(Encode(o.Facts)); err != nil || len(g.Funcs) != len(o.Facts.Funcs) {
		t.Errorf("decode: %v", err)
	}
	askLater(o, data)
	return out
}

// askLater asks what the graph of a whole program asks of an object.
func askLater(o *Object, data []byte) {
	if len(data) < 1<<15 {
		o.IndirectCalls(7)
	}
	for i := 0; i < len(o.Facts.Funcs); i += 1 + len(o.Facts.Funcs)/16 {
		fn := &o.Facts.Funcs[i]
		for _, use := range fn.Imports[:min(len(fn.Imports), 2)] {
			o.ImportCalls(uint32(i), use.Import, 7)
		}
		for _, e := range fn.Edges[:min(len(fn.Edges), 2)] {
			o.Passed(uint32(i), e.To, 23)
		}
	}
}

// tally sums up what became of many.
type tally struct {
	corrupted, rejected, lacking int
	worst                        outcome
}

func (s *tally) add(o outcome) {
	s.corrupted++
	switch {
	case o.err != nil:
		s.rejected++
	case o.lacking:
		s.lacking++
	}
	s.worst.steps, s.worst.alloc = max(s.worst.steps, o.steps), max(s.worst.alloc, o.alloc)
}

const victim = `
#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>
static int number(int x) { switch (x) { case 0: return 1; case 1: return 3; case 2: return 39; case 3: return 57; case 4: return 60; } return 0; }
static long wrap(long n) { return syscall(n, 0, 0, 0); }
static long (*volatile table[])(long) = { wrap, 0 };
int main(int c, char **v) { wrap(number(c)); table[0](SYS_getppid); return printf("%d\n", c) < 0; }
`

// victims returns small objects of different makers; key: name.
func victims(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range []string{"/bin/true", "/lib64/ld-linux-x86-64.so.2"} {
		if b, err := os.ReadFile(name); err == nil {
			out[filepath.Base(name)] = b
		}
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "v.c")
	if err := os.WriteFile(src, []byte(victim), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"musl-static":  {"musl-gcc", "-static", "-O2"},
		"gcc-no-pie":   {"gcc", "-no-pie", "-O2"},
		"gcc-stripped": {"gcc", "-O2", "-s", "-fcf-protection"},
	} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("%s is not installed: %s is left out", args[0], name)
			continue
		}
		o := filepath.Join(dir, name)
		if msg, err := exec.Command(args[0], append(args[1:], src, "-o", o)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, msg)
		}
		b, err := os.ReadFile(o)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	if len(out) == 0 {
		t.Fatal("there is no object to corrupt")
	}
	return out
}

// place is a part of a file by its offset.
type place struct {
	name     string
	from, to int
}

// places lists the parts of an object that say what the rest is, and its code.
func places(t *testing.T, data []byte) []place {
	f, err := object.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	out := []place{{"header", 0, 64}, {"program headers", 64, 64 + 56*int(le.Uint16(data[56:]))}}
	if off := int(le.Uint64(data[40:])); f.HasSections {
		out = append(out, place{"section headers", off, off + 64*int(le.Uint16(data[60:]))})
	}
	for _, s := range f.Sections {
		b := f.Bytes(s.Addr, s.Size)
		if len(b) == 0 {
			continue
		}
		for _, g := range f.Segments {
			if s.Addr >= g.Addr && s.Addr-g.Addr < g.FileSize {
				from := int(g.Offset + s.Addr - g.Addr)
				out = append(out, place{s.Name, from, from + len(b)})
			}
		}
	}
	return out
}

// TestCorrupted breaks real objects in some thousand ways, always the same
// ones: no panic, facts that are consistent or an error that callers know, and
// no more steps and memory than is stated. It doesn't run beside other tests,
// because it counts what is allocated.
func TestCorrupted(t *testing.T) {
	for name, data := range victims(t) {
		where := places(t, data)
		t.Run(name, func(t *testing.T) {
			clean := extract(t, data)
			var sum tally
			n := max(60, 12<<20/len(data))
			n = min(n, 1200)
			r := rand.New(rand.NewPCG(1, uint64(len(name))))
			for i := range n / 6 {
				cut := 1 + i*(len(data)-1)/(n/6)
				sum.add(check(t, fmt.Sprintf("cut at %#x", cut), data[:cut]))
			}
			for range n {
				p := where[r.IntN(len(where))]
				b := slices.Clone(data)
				what := p.name + ":"
				for range 1 + r.IntN(3) {
					at := p.from + r.IntN(p.to-p.from)
					switch r.IntN(4) {
					case 0:
						b[at] ^= 1 << r.IntN(8)
					case 1:
						b[at] = 0xff
					case 2:
						b[at] = byte(r.Uint32())
					case 3: // a whole word, such as a size or an address
						at = min(at&^7, len(b)-8)
						binary.LittleEndian.PutUint64(b[at:], []uint64{0, ^uint64(0), 1 << 63, r.Uint64() >> r.IntN(64)}[r.IntN(4)])
					}
					what += fmt.Sprintf(" %#x", at)
				}
				sum.add(check(t, what, b))
			}
			t.Logf("%d bytes, corrupted %d times: %d rejected, %d analysed with something missing, %d analysed; worst %d steps (%.1f for a byte; %d when it is whole) and %d KiB allocated (%.0f bytes for one; %d KiB)",
				len(data), sum.corrupted, sum.rejected, sum.lacking, sum.corrupted-sum.rejected-sum.lacking,
				sum.worst.steps, float64(sum.worst.steps)/float64(len(data)), clean.steps,
				sum.worst.alloc>>10, float64(sum.worst.alloc)/float64(len(data)), clean.alloc>>10)
		})
	}
}

// check extracts a broken object and says how it was broken if that panics.
func check(t *testing.T, what string, data []byte) outcome {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s: panic: %v", what, r)
			panic(r)
		}
		if t.Failed() {
			t.Fatal(what)
		}
	}()
	out := extract(t, data)
	if limit := boundAlloc + boundAllocPerByte*len(data); out.alloc > limit {
		t.Errorf("%d bytes were allocated for an object of %d, the bound is %d", out.alloc, len(data), limit)
	}
	return out
}

// Little code far apart takes no memory for what lies between.
func TestFarApart(t *testing.T) {
	data := slices.Clone(victims(t)["gcc-no-pie"])
	f, err := object.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	last := f.Segments[len(f.Segments)-1]
	le := binary.LittleEndian
	for i := range int(le.Uint16(data[56:])) {
		h := data[64+56*i:]
		if elf.ProgType(le.Uint32(h)) != elf.PT_NOTE {
			continue
		}
		for _, c := range []struct {
			distance uint64
			rejected bool
		}{{0, false}, {200 << 20, false}, {900 << 20, true}, {1 << 40, true}} {
			at := (last.Addr+last.MemSize+c.distance)&^0xfff + 0x1000
			le.PutUint32(h, uint32(elf.PT_LOAD))
			le.PutUint32(h[4:], uint32(elf.PF_R|elf.PF_X))
			for off, v := range map[int]uint64{8: 0, 16: at, 24: at, 32: 0x1000, 40: 0x1000} {
				le.PutUint64(h[off:], v)
			}
			o := check(t, fmt.Sprintf("%d bytes apart", c.distance), data)
			if errors.Is(o.err, object.ErrMalformed) != c.rejected {
				t.Errorf("%d bytes apart: %v, want it rejected: %v", c.distance, o.err, c.rejected)
			}
			t.Logf("%d bytes apart: %d KiB allocated", c.distance, o.alloc>>10)
		}
		return
	}
	t.Fatal("there is no note to make a segment of")
}

func FuzzExtract(f *testing.F) {
	if _, err := exec.LookPath("gcc"); err != nil {
		f.Skip("gcc is not installed")
	}
	dir := f.TempDir()
	src := filepath.Join(dir, "v.c")
	text := `
extern long g(long); int x = 3; static int n(int c) { switch (c) { case 0: return 1; case 1: return 3; case 2: return 39; case 3: return 57; case 4: return 60; } return 0; }
static long w(long n) { long r; __asm__ volatile("syscall" : "=a"(r) : "0"(n) : "rcx", "r11", "memory"); return r; }
static long (*volatile t[])(long) = { w, g };
void _start(void) { w(n(x)); t[0](60); w(x); g(1); }
`
	if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
		f.Fatal(err)
	}
	for i, args := range [][]string{{"-shared", "-fPIC"}, {"-no-pie", "-Wl,--unresolved-symbols=ignore-all", "-static"}, {"-shared", "-fPIC", "-s", "-O2"}} {
		o := filepath.Join(dir, fmt.Sprint(i))
		if msg, err := exec.Command("gcc", append(args, "-nostdlib", "-Wl,-z,noseparate-code", src, "-o", o)...).CombinedOutput(); err != nil {
			f.Fatalf("gcc %v: %v\n%s", args, err, msg)
		}
		b, err := os.ReadFile(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) { extract(t, data) })
}
