package facts

import (
	"debug/gosym"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// buildGo returns a static program made of one file.
func buildGo(t *testing.T, source string, flags ...string) []byte {
	t.Helper()
	src, prog := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", prog, src)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(prog)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestGoEntries compares with the standard library's reader on a real program.
func TestGoEntries(t *testing.T) {
	for _, mode := range []string{"exe", "pie"} {
		data := buildGo(t, "package main\n\nfunc main() { println(\"hi\") }\n", "-buildmode="+mode)
		f, err := object.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		tab := f.Bytes(f.GoPCLN[0], f.GoPCLN[1])
		const text = 0x401000
		got, ok := goEntries(tab, text)
		if !ok {
			t.Fatalf("%s: the table isn't read", mode)
		}
		want, err := gosym.NewTable(nil, gosym.NewLineTable(tab, text))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want.Funcs) || len(got) < 500 {
			t.Fatalf("%s: %d entries, want %d", mode, len(got), len(want.Funcs))
		}
		for i := range got {
			if got[i].addr != want.Funcs[i].Entry {
				t.Fatalf("%s: entry %d is %#x, want %#x", mode, i, got[i].addr, want.Funcs[i].Entry)
			}
			name, _ := f.CString(f.GoPCLN[0]+uint64(got[i].name), maxGoName)
			if name != want.Funcs[i].Name {
				t.Fatalf("%s: entry %d is named %q, want %q", mode, i, name, want.Funcs[i].Name)
			}
		}
		for n := range len(tab) {
			if n > 256 {
				break
			}
			goEntries(tab[:n], text) // must not panic
		}
	}
}

// TestGoNames checks that functions of a stripped program have names.
func TestGoNames(t *testing.T) {
	data := buildGo(t, "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"hi\") }\n", "-ldflags=-s -w")
	o, err := Extract(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, s := range o.Facts.Symbols {
		named[s] = true
	}
	for _, want := range []string{"main.main", "syscall.Syscall", "os.(*File).Write"} {
		if !named[want] {
			t.Errorf("no function is named %s", want)
		}
	}
	if n := len(Encode(o.Facts)); n > len(data)*3/100 {
		t.Errorf("facts of %d bytes for a program of %d", n, len(data))
	}
}

func FuzzGoEntries(f *testing.F) {
	for _, magic := range []uint32{object.GoMagic12, object.GoMagic116, object.GoMagic118, object.GoMagic120} {
		b := binary.LittleEndian.AppendUint32(nil, magic)
		b = append(b, 0, 0, 1, 8)
		for _, w := range []uint64{2, 1, 0x1000, 72, 80, 80, 80, 80} {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		f.Add(append(b, make([]byte, 128)...), uint64(0x1000))
	}
	f.Fuzz(func(t *testing.T, tab []byte, text uint64) {
		list, ok := goEntries(tab, text)
		if !ok && list != nil || len(list) > len(tab) {
			t.Errorf("%d functions of %d bytes, %v", len(list), len(tab), ok)
		}
		for _, g := range list {
			if int(g.name) > len(tab) {
				t.Errorf("a name at %#x of %#x", g.name, len(tab))
			}
		}
	})
}
