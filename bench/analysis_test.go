// Package bench holds benchmarks against named peers, on the programs of this
// machine. They are not part of the tests.
package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/rootfs"
)

// programs are analysed with their closures.
var programs = []string{
	"/usr/bin/redis-server", "/usr/sbin/nginx", "/usr/bin/bash", "/usr/bin/sqlite3",
	"/usr/lib/postgresql/15/bin/postgres", "/usr/bin/true", "/usr/bin/busybox",
}

// large are single objects from small to the largest, to show how time and
// memory grow with code. Patterns of filepath.Glob.
var large = []string{
	"/usr/lib/x86_64-linux-gnu/libz.so.1.*", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
	"/usr/lib/postgresql/*/bin/postgres", "/usr/sbin/mariadbd", "/usr/lib/go-*/pkg/tool/*/compile", "/usr/local/go/pkg/tool/*/compile",
	"/usr/bin/gdb", "/usr/lib/x86_64-linux-gnu/libnode.so.*", "/usr/bin/node", "/usr/lib/x86_64-linux-gnu/libLLVM-*.so.1",
	"/usr/lib/chromium/chromium", "/usr/lib/jvm/*/lib/server/libjvm.so",
}

// memory is a cache of facts.
type memory struct {
	mu    sync.Mutex
	facts map[string][]byte
}

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.facts[key], nil
}

func (m *memory) Put(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts[key] = data
	return nil
}

// What there is when an analysis begins.
const (
	nothing = iota // no facts
	encoded        // the facts of all objects, as they are stored
	decoded        // those facts in memory, as a server has them after the first analysis
)

// BenchmarkClosure analyses a program with all that it loads.
func BenchmarkClosure(b *testing.B) {
	for _, p := range programs {
		b.Run(filepath.Base(p)+"/uncached", func(b *testing.B) { closure(b, p, nothing) })
		b.Run(filepath.Base(p)+"/stored", func(b *testing.B) { closure(b, p, encoded) })
		b.Run(filepath.Base(p)+"/cached", func(b *testing.B) { closure(b, p, decoded) })
	}
}

func closure(b *testing.B, program string, have int) {
	requires(b, program)
	root, err := rootfs.NewDir("/")
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	req := analysis.Request{Root: root, Programs: []analysis.Program{{Path: program}}, Options: analysis.Options{NoFollow: true}}
	cache := &memory{facts: map[string][]byte{}}
	req.Options.Cache = cache
	result, err := analysis.Analyze(b.Context(), req)
	if err != nil {
		b.Fatal(err)
	}
	switch have {
	case nothing:
		req.Options.Cache = nil
	case decoded:
		req.Options.Memory = analysis.NewMemory(128 << 20)
		if _, err := analysis.Analyze(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
	var bytes, kept int64
	for _, o := range result.Objects {
		bytes += o.Size
	}
	for _, f := range cache.facts {
		kept += int64(len(f))
	}
	b.SetBytes(bytes)
	b.ReportAllocs()
	before := processor()
	for b.Loop() {
		if _, err := analysis.Analyze(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((processor()-before).Seconds()*1e3/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(len(result.Syscalls)), "calls")
	b.ReportMetric(100*float64(kept)/float64(bytes), "facts-%")
}

// processor is the processor time of this process, in both modes: other than the
// time that passes, it doesn't grow with what else the machine does.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // its arguments are constant
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkObjdump disassembles the same objects with the peer that the first
// Confine called.
func BenchmarkObjdump(b *testing.B) {
	for _, p := range programs {
		b.Run(filepath.Base(p), func(b *testing.B) {
			requires(b, p)
			objdump, err := exec.LookPath("objdump")
			if err != nil {
				b.Skip("objdump is not installed")
			}
			paths, size := objects(b, p)
			b.SetBytes(size)
			for b.Loop() {
				if err := exec.CommandContext(b.Context(), objdump, append([]string{"-d"}, paths...)...).Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func objects(b *testing.B, program string) (paths []string, size int64) {
	b.Helper()
	root, err := rootfs.NewDir("/")
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	result, err := analysis.Analyze(b.Context(), analysis.Request{
		Root: root, Programs: []analysis.Program{{Path: program}}, Options: analysis.Options{NoFollow: true},
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range result.Objects {
		paths, size = append(paths, o.Path), size+o.Size
	}
	return paths, size
}

// BenchmarkObject finds the facts of one object, on one processor.
func BenchmarkObject(b *testing.B) {
	for _, pattern := range large {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			continue
		}
		b.Run(filepath.Base(paths[0]), func(b *testing.B) { single(b, paths[0]) })
	}
}

func single(b *testing.B, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		b.Skip(err)
	}
	var code, kept, live int64
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		file, err := object.Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		built, err := facts.Build(b.Context(), file)
		if err != nil {
			b.Fatal(err)
		}
		code = 0
		for _, f := range built.Facts.Funcs {
			code += int64(f.End - f.Start)
		}
		b.StopTimer()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		live = max(live, int64(stats.HeapAlloc)-int64(len(data)))
		kept = int64(len(facts.Encode(built.Facts)))
		b.StartTimer()
	}
	b.ReportMetric(float64(code)/1e6, "code-MB")
	b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N)/(float64(code)/1e6), "ms/code-MB")
	b.ReportMetric(100*float64(kept)/float64(len(data)), "facts-%")
	b.ReportMetric(float64(live)/1e6, "heap-MB")
}

func requires(b *testing.B, program string) {
	b.Helper()
	if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) {
		b.Skip(program + " is not installed")
	}
}
