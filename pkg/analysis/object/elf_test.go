package object_test

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// segment is one program header of a made file. Offset and size are those of
// the content, which is put behind the headers.
type segment struct {
	typ     elf.ProgType
	flags   elf.ProgFlag
	addr    uint64
	content []byte
	memsz   uint64 // len(content) when 0
	share   int    // 1 + the index of the segment whose content it shares
}

// section is one section header of a made file, whose bytes are those of a
// segment.
type section struct {
	name    string
	typ     elf.SectionType
	flags   elf.SectionFlag
	addr    uint64
	segment int
	size    uint64 // all of the segment when 0
	link    uint32
}

var le = binary.LittleEndian

// makeELF writes a file of the given parts and no others.
func makeELF(typ elf.Type, entry uint64, segs []segment, secs []section) []byte {
	head := make([]byte, 64+56*len(segs))
	copy(head, elf.ELFMAG)
	head[elf.EI_CLASS], head[elf.EI_DATA], head[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	le.PutUint16(head[16:], uint16(typ))
	le.PutUint16(head[18:], uint16(elf.EM_X86_64))
	le.PutUint64(head[24:], entry)
	le.PutUint64(head[32:], 64)
	le.PutUint16(head[54:], 56)
	le.PutUint16(head[56:], uint16(len(segs)))
	out := head
	offsets := make([]uint64, len(segs))
	for i, s := range segs {
		content := s.content
		if s.share > 0 {
			offsets[i], content = offsets[s.share-1], segs[s.share-1].content
		} else {
			for len(out)%16 != 0 {
				out = append(out, 0)
			}
			offsets[i] = uint64(len(out))
			out = append(out, content...)
		}
		p := out[64+56*i:]
		le.PutUint32(p, uint32(s.typ))
		le.PutUint32(p[4:], uint32(s.flags))
		le.PutUint64(p[8:], offsets[i])
		le.PutUint64(p[16:], s.addr)
		le.PutUint64(p[32:], uint64(len(content)))
		le.PutUint64(p[40:], max(s.memsz, uint64(len(content))))
	}
	if len(secs) == 0 {
		return out
	}
	names := []byte{0}
	var table []byte
	for _, s := range append(secs, section{name: ".shstrtab", typ: elf.SHT_STRTAB, segment: -1}) {
		h := make([]byte, 64)
		le.PutUint32(h, uint32(len(names)))
		names = append(append(names, s.name...), 0)
		le.PutUint32(h[4:], uint32(s.typ))
		le.PutUint64(h[8:], uint64(s.flags))
		le.PutUint64(h[16:], s.addr)
		if s.segment >= 0 {
			size := s.size
			if size == 0 {
				size = uint64(len(segs[s.segment].content))
			}
			le.PutUint64(h[24:], offsets[s.segment])
			le.PutUint64(h[32:], size)
		}
		le.PutUint32(h[40:], s.link)
		table = append(table, h...)
	}
	last := table[len(table)-64:]
	le.PutUint64(last[24:], uint64(len(out)))
	le.PutUint64(last[32:], uint64(len(names)))
	out = append(out, names...)
	le.PutUint64(out[40:], uint64(len(out)))
	le.PutUint16(out[58:], 64)
	le.PutUint16(out[60:], uint16(len(secs)+1))
	le.PutUint16(out[62:], uint16(len(secs)))
	return append(out, table...)
}

// dynamic writes tags and values in pairs, and the end.
func dynamic(pairs ...uint64) []byte {
	var out []byte
	for _, v := range append(pairs, 0, 0) {
		out = le.AppendUint64(out, v)
	}
	return out
}

// program is a static program of a few instructions, without sections.
func program() []byte {
	code := []byte{
		0xb8, 60, 0, 0, 0, // mov $60, %eax
		0x0f, 0x05, // syscall
		0xf4, // hlt
	}
	return makeELF(elf.ET_EXEC, 0x401000, []segment{{typ: elf.PT_LOAD, flags: elf.PF_R | elf.PF_X, addr: 0x401000, content: code}}, nil)
}

// library is C source with everything that the dynamic tables can hold.
const library = `
#include <stddef.h>
extern int environ_like __attribute__((weak));
extern void *malloc(size_t);
static int one(int x) { return x + 1; }
static int two(int x) { return x * 2; }
int (*table[])(int) = { one, two };
__thread int local = 3;
__attribute__((constructor)) static void start(void) { table[0] = two; }
static int (*pick(void))(int) { return one; }
int chosen(int) __attribute__((ifunc("pick")));
int old(int x) { return table[x & 1](x) + local; }
__asm__(".symver old, name@V1");
int new(int x) { return *(int *)malloc(4) + chosen(x) + (&environ_like ? 1 : 0); }
__asm__(".symver new, name@@V2");
`

// built returns small objects that this machine's compiler makes: a shared
// object with versions, relocations and an IFUNC; the same with packed relative
// relocations and stripped of its section headers; and a static program.
func built(t testing.TB) [][]byte {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Log("gcc is not installed: only files made by hand are looked at")
		return nil
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	lib := write("lib.c", library)
	script := write("lib.map", "V1 { }; V2 { } V1;\n")
	start := write("start.s", ".globl _start\n_start: mov $60, %eax\n call f\n hlt\nf: syscall\n ret\n.section .note.GNU-stack,\"\",@progbits\n")
	var out [][]byte
	for i, args := range [][]string{
		{"-shared", "-fPIC", "-O1", "-nostdlib", "-Wl,--version-script=" + script, "-Wl,-rpath,$ORIGIN", "-Wl,--hash-style=both", lib},
		{"-shared", "-fPIC", "-O1", "-nostdlib", "-Wl,--version-script=" + script, "-Wl,-z,pack-relative-relocs", "-s", lib},
		{"-static", "-nostdlib", start},
	} {
		o := filepath.Join(dir, string(rune('a'+i)))
		if msg, err := exec.Command(gcc, append(args, "-o", o)...).CombinedOutput(); err != nil {
			t.Fatalf("gcc %v: %v\n%s", args, err, msg)
		}
		b, err := os.ReadFile(o)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}
