package facts

import (
	"debug/gosym"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// TestGoEntries compares with the standard library's reader on a real program.
func TestGoEntries(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() { println(\"hi\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"exe", "pie"} {
		prog := filepath.Join(dir, mode)
		cmd := exec.Command("go", "build", "-buildmode="+mode, "-o", prog, src)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, err := os.ReadFile(prog)
		if err != nil {
			t.Fatal(err)
		}
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
			if got[i] != want.Funcs[i].Entry {
				t.Fatalf("%s: entry %d is %#x, want %#x", mode, i, got[i], want.Funcs[i].Entry)
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
