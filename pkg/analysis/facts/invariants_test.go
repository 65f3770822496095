package facts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// realObjects lists what this machine has of programs, libraries and loaders,
// of several makers.
func realObjects(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{
		"/bin/true", "/bin/bash", "/bin/dash", "/bin/busybox", "/usr/bin/gcc", "/usr/bin/perl", "/usr/bin/node",
		"/lib*/ld-linux-x86-64.so.2", "/lib*/*/libc.so.6", "/usr/i686-linux-gnu/lib/libc.so.6", "/lib*/*/libm.so.6", "/lib/ld-musl-x86_64.so.1",
		"/usr/lib/*/libcrypto.so.3", "/usr/lib/*/libstdc++.so.6", "/usr/lib/*/libgcrypt.so.20", "/usr/lib/*/libgcc_s.so.1", "/lib*/*/libnss_files.so.2",
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, names[:min(len(names), 1)]...)
	}
	if exe, err := os.Executable(); err == nil { // a Go program
		out = append(out, exe)
	}
	return out
}

// TestRealObjects checks the facts of real objects, and that writing and
// reading them again changes nothing.
func TestRealObjects(t *testing.T) {
	names := realObjects(t)
	if len(names) < 5 {
		t.Fatalf("only %v found", names)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			o, err := Extract(context.Background(), data)
			if err != nil {
				t.Fatal(err)
			}
			f := o.Facts
			if len(f.Funcs) == 0 {
				t.Error("no functions")
			}
			for _, w := range f.Warnings {
				t.Error("warning:", w)
			}
			for _, w := range f.Invariants() {
				t.Error(w)
			}
			roundTrip(t, f)
			printed(t, f, name)
			raw := rawSites(o)
			for a := range raw {
				if !raw[a] {
					t.Errorf("the system call at %#x was found in the code and is in no function", a)
				}
			}
		})
	}
}

// printed checks both printed forms of facts: each record is a line of JSON, and
// a paragraph of text that begins with its kind.
func printed(t *testing.T, f *Facts, path string) {
	t.Helper()
	var text, lines bytes.Buffer
	if err := errors.Join(f.Print(&text, path, false), f.Print(&lines, path, true)); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for line := range bytes.Lines(lines.Bytes()) {
		var r Record
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil || r.Object != path {
			t.Fatalf("%s: %v", line, err)
		}
		count[r.Kind]++
	}
	want := map[string]int{"object": 1, "import": len(f.Imports), "export": len(f.Exports), "region": len(f.Regions), "function": len(f.Funcs)}
	sum := 0
	for kind, n := range want {
		if count[kind] != n {
			t.Errorf("%d records of kind %s, want %d", count[kind], kind, n)
		}
		sum += n
	}
	paragraphs := 0
	for line := range bytes.Lines(text.Bytes()) {
		if line[0] != ' ' {
			paragraphs++
		}
	}
	if paragraphs != sum {
		t.Errorf("%d paragraphs of text for %d records", paragraphs, sum)
	}
	if bytes.IndexFunc(text.Bytes(), func(r rune) bool { return r < 0x20 && r != '\n' }) >= 0 {
		t.Error("the text has control characters")
	}
}

// rawSites tells of each instruction that enters the kernel whether a function
// has it. Bytes among data that look like one don't count.
func rawSites(o *Object) map[uint64]bool {
	out := map[uint64]bool{}
	for _, s := range o.sites {
		if !o.gap(s.at) {
			out[s.at] = false
		}
	}
	for i := range o.Facts.Funcs {
		for _, s := range o.Facts.Funcs[i].Sites {
			if _, ok := out[s.Addr]; ok && s.Via == 0 {
				out[s.Addr] = true
			}
		}
	}
	return out
}
