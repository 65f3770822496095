package main_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// libraries lists what the loader maps for a program, itself included.
func libraries(t *testing.T, program string) []string {
	t.Helper()
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil {
		t.Fatalf("ldd %s: %v\n%s", program, err, out)
	}
	var libs []string
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			libs = append(libs, word)
		}
	}
	if len(libs) == 0 {
		t.Fatalf("ldd %s names no library:\n%s", program, out)
	}
	return libs
}

// compileLibrary makes a shared object that nothing else uses.
func compileLibrary(t *testing.T) string {
	t.Helper()
	return compile(t, "library.c", "-shared", "-fPIC")
}

func TestMappings(t *testing.T) {
	load := compile(t, "load.c")
	lib := compileLibrary(t)
	for _, how := range []string{"dlopen", "mmap", "mprotect"} {
		t.Run(how, func(t *testing.T) {
			s := watchTree(t, load, how, lib)
			if s.mapped()[lib] == 0 {
				t.Errorf("%s isn't among the mappings %v", lib, s.mapped())
			}
		})
	}
	t.Run("not executable", func(t *testing.T) {
		s := watchTree(t, load, "read", lib)
		if s.mapped()[lib] != 0 {
			t.Errorf("%s is among the mappings, but was only read", lib)
		}
	})
}

// Threads that change one address space at once keep the kernel's side from
// looking at it; nothing may get lost by that.
func TestContendedMappings(t *testing.T) {
	dir := real(t, t.TempDir())
	program, err := os.ReadFile(compile(t, "nop.c", "-static"))
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 200
	args := []string{compile(t, "churn.c"), strconv.Itoa(rounds)}
	for i := range 16 {
		file := filepath.Join(dir, "file "+strconv.Itoa(i))
		if err := os.WriteFile(file, program, 0o755); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	s := watchTree(t, args...)
	for _, file := range args[2:] {
		if got := s.mapped()[file]; got != rounds+1 {
			t.Errorf("%s: %d mappings seen, want %d", file, got, rounds+1)
		}
	}
}

func TestInterpreterOfProgram(t *testing.T) {
	f, err := elf.Open("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := f.Section(".interp").Data()
	if err != nil {
		t.Fatal(err)
	}
	interp := real(t, strings.TrimRight(string(raw), "\x00"))
	s := watchTree(t, "/bin/true")
	if s.mapped()[interp] != 1 {
		t.Errorf("%s was mapped %d times, want once: %v", interp, s.mapped()[interp], s.mapped())
	}
}
