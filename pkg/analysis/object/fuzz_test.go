package object_test

import (
	"testing"

	"github.com/confinehq/confine/pkg/analysis/object"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x7fELF"))
	f.Add(program())
	for _, b := range built(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := object.Parse(data)
		if err != nil {
			return
		}
		consistent(t, file)
	})
}

// consistent checks what every user of a parsed file takes for granted.
func consistent(t *testing.T, f *object.File) {
	t.Helper()
	for i := 1; i < len(f.Segments); i++ {
		if p := f.Segments[i-1]; f.Segments[i].Addr < p.Addr+p.MemSize {
			t.Errorf("segments %d and %d overlap", i-1, i)
		}
	}
	for i := range f.Segments {
		if s := f.Segments[i]; s.Offset+s.FileSize > uint64(len(f.Data)) || s.FileSize > s.MemSize {
			t.Errorf("segment %d has %#x bytes at %#x in a file of %#x", i, s.FileSize, s.Offset, len(f.Data))
		}
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		if i > 0 && s.Addr < f.Sections[i-1].Addr+f.Sections[i-1].Size {
			t.Errorf("sections %d and %d overlap", i-1, i)
		}
		if s.Addr+s.Size < s.Addr {
			t.Errorf("section %d wraps around", i)
		}
		if got := f.SectionAt(s.Addr); s.Size > 0 && got != i {
			t.Errorf("section %d isn't found by its address: %d", i, got)
		}
	}
	for i, e := range f.FDEs {
		if e.End <= e.Start || i > 0 && e.Start < f.FDEs[i-1].End {
			t.Errorf("unwind entry %d is empty or overlaps", i)
		}
	}
	for _, e := range f.FDEs {
		pads, _ := f.Landings(e)
		for _, p := range pads {
			if p.End < p.Start {
				t.Errorf("a landing pad of %#x to %#x", p.Start, p.End)
			}
		}
	}
	for i := range f.Relocs {
		if r := f.Relocs[i]; int(r.Sym) >= len(f.DynSyms) || r.Sym < -1 || i > 0 && r.Addr < f.Relocs[i-1].Addr {
			t.Errorf("relocation %d names symbol %d of %d, or is out of order", i, r.Sym, len(f.DynSyms))
		}
	}
	for _, a := range []uint64{0, f.Entry, ^uint64(0), ^uint64(0) - 7} {
		f.From(a)
		f.U64(a)
		f.CString(a, 16)
		f.SectionAt(a)
		if b := f.Bytes(a, ^uint64(0)); b != nil {
			t.Errorf("more bytes than there can be at %#x", a)
		}
	}
}
