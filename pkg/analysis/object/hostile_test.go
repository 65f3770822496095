package object_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"runtime"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/object"
)

// TestHostile parses files that are made to take long or to need much: each
// must be over with, at memory in proportion to its size.
func TestHostile(t *testing.T) {
	const base = 0x10000
	rw := elf.PF_R | elf.PF_W
	long := append(bytes.Repeat([]byte("a"), 60000), 0)
	for _, c := range []struct {
		name string
		data []byte
		// wants an error rather than a file.
		fails bool
	}{
		{name: "versions that overlap", data: overlappingVersions()},
		{name: "every symbol has a long name of its own", data: longNames(long)},
		{name: "thousands of symbol tables", data: manySymtabs()},
		{name: "every section has a long name of its own", data: longSectionNames(long)},
		{name: "more segments than the kernel loads", data: manySegments(4000, 1), fails: true},
		{name: "one page mapped a thousand times", data: manySegments(1000, 1<<16), fails: true},
		{name: "segments that overlap", fails: true, data: makeELF(elf.ET_DYN, 0, []segment{
			{typ: elf.PT_LOAD, flags: elf.PF_R | elf.PF_X, addr: base, content: make([]byte, 4096)},
			{typ: elf.PT_LOAD, flags: rw, addr: base + 16, content: make([]byte, 4096)},
		}, nil)},
		{name: "a size that wraps around", fails: true, data: makeELF(elf.ET_DYN, 0, []segment{
			{typ: elf.PT_LOAD, flags: rw, addr: ^uint64(0) - 8, content: make([]byte, 16)},
		}, nil)},
		{name: "a section that wraps around", data: makeELF(elf.ET_DYN, 0, []segment{
			{typ: elf.PT_LOAD, flags: rw, addr: base, content: make([]byte, 64)},
		}, []section{
			{name: ".text", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, addr: base + 16, segment: 0, size: ^uint64(0)},
		})},
		{name: "packed relocations of themselves", data: makeELF(elf.ET_DYN, 0, []segment{
			{typ: elf.PT_LOAD, flags: rw, addr: base, content: bytes.Repeat([]byte{0xff, 0xff, 0, 0, 0, 0, 0, 0}, 1<<14)},
			{typ: elf.PT_DYNAMIC, addr: 0, content: dynamic(36, base, 35, 1<<17)},
		}, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			f, err := object.Parse(c.data)
			runtime.ReadMemStats(&after)
			if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(len(c.data))*64+1<<20; got > limit {
				t.Errorf("%d bytes were allocated for a file of %d", got, len(c.data))
			}
			switch {
			case c.fails && !errors.Is(err, object.ErrMalformed):
				t.Errorf("error %v, want %v", err, object.ErrMalformed)
			case !c.fails && err != nil:
				t.Error(err)
			case !c.fails:
				consistent(t, f)
			}
		})
	}
}

// overlappingVersions has thousands of version needs that all have the same
// thousands of names.
func overlappingVersions() []byte {
	const base, size = 0x10000, 1 << 19
	var tab []byte
	for range size / 16 {
		tab = le.AppendUint32(tab, 0xffff<<16|1) // version, count
		tab = le.AppendUint32(tab, 0)
		tab = le.AppendUint32(tab, size/2) // to the names
		tab = le.AppendUint32(tab, 16)     // to the next
	}
	syms := make([]byte, 48)
	return makeELF(elf.ET_DYN, 0, []segment{
		{typ: elf.PT_LOAD, flags: elf.PF_R, addr: base, content: tab},
		{typ: elf.PT_LOAD, flags: elf.PF_R, addr: base + 2*size, content: append(syms, 0, 0, 0, 0, 0, 0, 0, 0)},
		{typ: elf.PT_DYNAMIC, content: dynamic(
			uint64(elf.DT_SYMTAB), base+2*size, uint64(elf.DT_STRTAB), base+2*size+48, uint64(elf.DT_STRSZ), 8,
			uint64(elf.DT_VERSYM), base, uint64(elf.DT_VERNEED), base, uint64(elf.DT_VERNEEDNUM), 1<<20,
			uint64(elf.DT_VERDEF), base, uint64(elf.DT_VERDEFNUM), 1<<20)},
	}, nil)
}

func longNames(long []byte) []byte {
	const n = 20000
	tab := make([]byte, n*24)
	for i := range n {
		le.PutUint32(tab[i*24:], uint32(i))
	}
	return makeELF(elf.ET_DYN, 0, []segment{
		{typ: elf.PT_LOAD, flags: elf.PF_R, addr: 0x10000, content: tab},
		{typ: elf.PT_LOAD, flags: elf.PF_R, addr: 0x1000000, content: long},
		{typ: elf.PT_DYNAMIC, content: dynamic(
			uint64(elf.DT_SYMTAB), 0x10000, uint64(elf.DT_STRTAB), 0x1000000, uint64(elf.DT_STRSZ), uint64(len(long)))},
	}, []section{
		{name: ".text", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, addr: 0x1000000, segment: 1},
		{name: ".symtab", typ: elf.SHT_SYMTAB, segment: 0, link: 2},
		{name: ".strtab", typ: elf.SHT_STRTAB, segment: 1},
	})
}

func longSectionNames(long []byte) []byte {
	var secs []section
	for range 10000 {
		secs = append(secs, section{name: string(long[len(long)-20:]), typ: elf.SHT_SYMTAB, segment: 0, size: 1})
	}
	b := makeELF(elf.ET_DYN, 0, []segment{{typ: elf.PT_LOAD, flags: elf.PF_R | elf.PF_X, addr: 0x10000, content: long}}, secs)
	names := bytes.Index(b, long[len(long)-20:]) // in the segment: it is long there
	table := b[le.Uint64(b[40:]):]
	last := table[len(secs)*64:]
	le.PutUint64(last[24:], 0)
	le.PutUint64(last[32:], uint64(len(b)))
	for i := range secs {
		le.PutUint32(table[i*64:], uint32(names-len(long)/2))
	}
	return b
}

func manySymtabs() []byte {
	secs := []section{{name: ".text", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, addr: 0x10000, segment: 0}}
	for range 20000 {
		secs = append(secs, section{name: "s", typ: elf.SHT_SYMTAB, segment: 0})
	}
	return makeELF(elf.ET_DYN, 0, []segment{{typ: elf.PT_LOAD, flags: elf.PF_R | elf.PF_X, addr: 0x10000, content: make([]byte, 1<<20)}}, secs)
}

// manySegments has n segments of the same bytes, one behind the other.
func manySegments(n, size int) []byte {
	segs := []segment{{typ: elf.PT_LOAD, flags: elf.PF_R | elf.PF_X, addr: 0x100000, content: make([]byte, size)}}
	for i := range n - 1 {
		segs = append(segs, segment{typ: elf.PT_LOAD, flags: elf.PF_R | elf.PF_X, addr: uint64(0x100000 + (i+1)*size), share: 1})
	}
	return makeELF(elf.ET_DYN, 0, segs, nil)
}
