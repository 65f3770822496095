package syscalls_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/confinehq/confine/pkg/syscalls"
)

func TestKnownNumbers(t *testing.T) {
	for _, c := range []struct {
		arch syscalls.Arch
		nr   int
		name string
	}{
		{syscalls.AMD64, 0, "read"},
		{syscalls.AMD64, 59, "execve"},
		{syscalls.AMD64, 156, "_sysctl"},
		{syscalls.AMD64, 262, "newfstatat"},
		{syscalls.AMD64, 334, "rseq"},
		{syscalls.AMD64, 335, "uretprobe"},
		{syscalls.AMD64, 424, "pidfd_send_signal"},
		{syscalls.AMD64, 452, "fchmodat2"},
		{syscalls.I386, 0, "restart_syscall"},
		{syscalls.I386, 11, "execve"},
		{syscalls.I386, 403, "clock_gettime64"},
		{syscalls.ARM64, 79, "newfstatat"},
		{syscalls.ARM64, 84, "sync_file_range"},
		{syscalls.ARM64, 221, "execve"},
	} {
		if got, ok := syscalls.Name(c.arch, c.nr); !ok || got != c.name {
			t.Errorf("Name(%s, %d) = %q, %v; want %q", c.arch, c.nr, got, ok, c.name)
		}
		if got, ok := syscalls.Number(c.arch, c.name); !ok || got != c.nr {
			t.Errorf("Number(%s, %s) = %d, %v; want %d", c.arch, c.name, got, ok, c.nr)
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, nr := range []int{-1, 340, 1 << 20, 0x40000000} {
		if name, ok := syscalls.Name(syscalls.AMD64, nr); ok {
			t.Errorf("Name(amd64, %d) = %q, want none", nr, name)
		}
	}
	for _, name := range []string{"", "READ", "open64", "arch_specific_syscall"} {
		for _, arch := range []syscalls.Arch{syscalls.AMD64, syscalls.I386, syscalls.ARM64} {
			if nr, ok := syscalls.Number(arch, name); ok {
				t.Errorf("Number(%s, %q) = %d, want none", arch, name, nr)
			}
		}
	}
	if n := syscalls.Count("mips"); n != 0 {
		t.Errorf("Count(mips) = %d, want 0", n)
	}
	if _, ok := syscalls.Number(syscalls.ARM64, "open"); ok {
		t.Error("arm64 has no open")
	}
}

// TestTables checks that each table is a bijection sorted by number.
func TestTables(t *testing.T) {
	for arch, least := range map[syscalls.Arch]int{syscalls.AMD64: 380, syscalls.I386: 460, syscalls.ARM64: 320} {
		all := syscalls.All(arch)
		if len(all) < least || len(all) != syscalls.Count(arch) {
			t.Errorf("%s: %d calls, Count %d, want at least %d", arch, len(all), syscalls.Count(arch), least)
		}
		if !slices.IsSortedFunc(all, func(a, b syscalls.Call) int { return a.Nr - b.Nr }) {
			t.Errorf("%s: not sorted", arch)
		}
		for _, c := range all {
			if nr, ok := syscalls.Number(arch, c.Name); !ok || nr != c.Nr {
				t.Errorf("%s: Number(%s) = %d, %v; want %d", arch, c.Name, nr, ok, c.Nr)
			}
			if name, ok := syscalls.Name(arch, c.Nr); !ok || name != c.Name {
				t.Errorf("%s: Name(%d) = %s, %v; want %s", arch, c.Nr, name, ok, c.Name)
			}
		}
	}
}

func TestForPlatform(t *testing.T) {
	for platform, want := range map[string]syscalls.Arch{
		"linux/amd64": syscalls.AMD64, "linux/386": syscalls.I386,
		"linux/arm64": syscalls.ARM64, "linux/arm64/v8": syscalls.ARM64,
		"windows/amd64": "", "linux/riscv64": "", "": "",
	} {
		got, ok := syscalls.ForPlatform(platform)
		if got != want || ok != (want != "") {
			t.Errorf("ForPlatform(%q) = %q, %v; want %q", platform, got, ok, want)
		}
	}
}

// TestHostHeaders compares the tables with the kernel headers of the machine
// the test runs on, an independent source.
func TestHostHeaders(t *testing.T) {
	headers := map[syscalls.Arch]string{
		syscalls.AMD64: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
		syscalls.I386:  "/usr/include/x86_64-linux-gnu/asm/unistd_32.h",
	}
	define := regexp.MustCompile(`(?m)^#define __NR_(\w+) (\d+)$`)
	for arch, file := range headers {
		t.Run(string(arch), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if os.IsNotExist(err) {
				t.Skip("no x86 kernel headers (linux-libc-dev) on this host")
			}
			if err != nil {
				t.Fatal(err)
			}
			found := define.FindAllStringSubmatch(string(b), -1)
			if len(found) < 300 {
				t.Fatalf("%s: only %d definitions", file, len(found))
			}
			for _, m := range found {
				want, err := strconv.Atoi(m[2])
				if err != nil {
					t.Fatal(err)
				}
				if got, ok := syscalls.Number(arch, m[1]); !ok || got != want {
					t.Errorf("Number(%s) = %d, %v; the header says %d", m[1], got, ok, want)
				}
			}
		})
	}
}

// TestGenerated checks that go generate would change nothing.
func TestGenerated(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "gen")
	if out, err := exec.Command("go", "build", "-o", bin, "./internal/gen").CombinedOutput(); err != nil {
		t.Fatalf("build generator: %v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	// The generator asks the go command about the module it runs in.
	for _, f := range []string{"go.mod", "go.sum"} {
		if err := os.Symlink(filepath.Join(here, "..", "..", f), filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*_gen.go"))
	if err != nil || len(made) != 6 {
		t.Fatalf("generated files: %v, %v", made, err)
	}
	for _, file := range made {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Base(file)); err != nil || string(got) != string(want) {
			t.Errorf("%s is out of date: run go generate ./pkg/syscalls (%v)", filepath.Base(file), err)
		}
	}
}

func ExampleName() {
	name, _ := syscalls.Name(syscalls.AMD64, 59)
	fmt.Println(name)
	// Output: execve
}
