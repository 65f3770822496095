package monitortest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// loadAt is the address of tiny programs.
const loadAt = 0x400000

// code reads a byte from standard input and exits with 0: a program that lives
// as long as somebody wants, or hardly at all.
func code() (machine elf.Machine, text []byte) {
	if runtime.GOARCH == "arm64" {
		var b []byte
		for _, op := range []uint32{
			0xd2800000, // mov x0, #0
			0x910003e1, // mov x1, sp
			0xd2800022, // mov x2, #1
			0xd28007e8, // mov x8, #63 (read)
			0xd4000001, // svc #0
			0xd2800000, // mov x0, #0
			0xd2800bc8, // mov x8, #94 (exit_group)
			0xd4000001, // svc #0
		} {
			b = binary.LittleEndian.AppendUint32(b, op)
		}
		return elf.EM_AARCH64, b
	}
	return elf.EM_X86_64, []byte{
		0x31, 0xff, // xor edi, edi
		0x48, 0x89, 0xe6, // mov rsi, rsp
		0xba, 1, 0, 0, 0, // mov edx, 1
		0x31, 0xc0, // xor eax, eax (read)
		0x0f, 0x05, // syscall
		0x31, 0xff, // xor edi, edi
		0xb8, 231, 0, 0, 0, // mov eax, 231 (exit_group)
		0x0f, 0x05, // syscall
	}
}

// exitGroup is the number of the call that ends a tiny program.
func exitGroup() int32 {
	if runtime.GOARCH == "arm64" {
		return 94
	}
	return 231
}

// image is a tiny static program as a file's content.
func image() []byte {
	machine, text := code()
	const head, entry = 64, 56 // sizes of the two headers
	size := uint64(head + entry + len(text))
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Entry: loadAt + head + entry,
		Phoff: head, Ehsize: head, Phentsize: entry, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: loadAt, Paddr: loadAt, Filesz: size, Memsz: size, Align: 0x1000,
	}
	// Writes to a buffer don't fail.
	_ = binary.Write(&b, binary.LittleEndian, h)
	_ = binary.Write(&b, binary.LittleEndian, p)
	b.Write(text)
	return b.Bytes()
}

// tiny writes a tiny static program into a folder of its own.
func tiny(t *testing.T, name string) string {
	t.Helper()
	return write(t, name, image())
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(real(t, t.TempDir()), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// real resolves symbolic links, as monitors do.
func real(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// dynamic copies a dynamically linked program that waits for its input.
func dynamic(t *testing.T) string {
	t.Helper()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(real(t, cat))
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "waits", content)
}

// loader is the ELF interpreter of a program, resolved.
func loader(t *testing.T, program string) string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			t.Fatal(err)
		}
		return real(t, string(bytes.TrimRight(name, "\x00")))
	}
	t.Skipf("%s has no interpreter: this host has no dynamically linked programs", program)
	return ""
}
