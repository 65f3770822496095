package x86

import (
	"bufio"
	"debug/elf"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestLengthsAgainstObjdump decodes the whole text of real libraries and wants
// objdump's instruction boundaries. More files: CONFINE_DECODE_FILES.
func TestLengthsAgainstObjdump(t *testing.T) {
	compareLengths(t, elf.EM_X86_64, Decode, "/lib/x86_64-linux-gnu/libc.so.6")
}

// TestLengths32AgainstObjdump is the same for 32-bit code.
func TestLengths32AgainstObjdump(t *testing.T) {
	for _, dir := range []string{"/usr/i686-linux-gnu/lib", "/lib/i386-linux-gnu", "/lib32"} {
		if _, err := os.Stat(dir + "/libc.so.6"); err == nil {
			compareLengths(t, elf.EM_386, Decode32, dir+"/libc.so.6")
			return
		}
	}
	if os.Getenv("CONFINE_REQUIRE_ALL") != "" {
		t.Fatal("no 32-bit C library is installed (libc6-i386-cross), and nothing may be left out")
	}
	t.Skip("no 32-bit C library is installed (libc6-i386-cross)")
}

func compareLengths(t *testing.T, machine elf.Machine, decode func([]byte, *Inst) int, libc string) {
	t.Helper()
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("objdump is not installed (binutils)")
	}
	files := []string{libc}
	if extra := os.Getenv("CONFINE_DECODE_FILES"); extra != "" {
		files = append(files, strings.Fields(extra)...)
	}
	for _, name := range files {
		f, err := elf.Open(name)
		if err != nil {
			t.Skipf("open %s: %v", name, err)
		}
		if f.Machine != machine {
			f.Close()
			continue
		}
		sec := f.Section(".text")
		text, err := sec.Data()
		if err != nil {
			t.Fatal(err)
		}
		base := sec.Addr
		f.Close()
		cmd := exec.Command(objdump, "-d", "-w", "-z", "-j", ".text", "--no-show-raw-insn", name)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var addrs []uint64
		var lines []string
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			a, rest, ok := strings.Cut(strings.TrimSpace(sc.Text()), ":\t")
			if !ok {
				continue
			}
			v, err := strconv.ParseUint(a, 16, 64)
			if err != nil {
				continue
			}
			addrs = append(addrs, v)
			lines = append(lines, rest)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		bad := 0
		for i := 0; i+1 < len(addrs); i++ {
			if strings.Contains(lines[i], "(bad)") || strings.HasPrefix(lines[i], ".") {
				continue
			}
			var inst Inst
			n := decode(text[addrs[i]-base:], &inst)
			want := int(addrs[i+1] - addrs[i])
			// objdump prints some prefixes as instructions of their own, and joins
			// fwait (9b) with the x87 instruction behind it.
			if n != want && !strings.HasPrefix(lines[i], "rex") && text[addrs[i]-base] != 0x9b && !isLonePrefix(lines[i]) {
				if bad < 20 {
					t.Errorf("%s %#x: length %d, objdump %d: %s (% x)", name, addrs[i], n, want, lines[i], text[addrs[i]-base:][:want])
				}
				bad++
			}
		}
		if len(addrs) < 1000 {
			t.Fatalf("objdump printed only %d instructions", len(addrs))
		}
		t.Logf("%s: %d instructions, %d differ", name, len(addrs), bad)
	}
}

func isLonePrefix(line string) bool {
	switch strings.Fields(line + " x")[0] {
	case "data16", "lock", "repz", "repnz", "cs", "ds", "es", "fs", "gs", "ss", "addr32":
		return len(strings.Fields(line)) == 1
	}
	return false
}
