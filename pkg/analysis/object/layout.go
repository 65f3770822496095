package object

import "debug/elf"

// layout is where the structures of a class of ELF files have their fields, as
// offsets in bytes (gABI chapters 4 and 5).
type layout struct {
	word uint64 // size of an address
	// The file's header.
	header, phoff, shoff, phsize, phnum, shsize, shnum, shstr uint64
	// A program header: size and fields.
	segment, pflags, poffset, pvaddr, pfilesz, pmemsz uint64
	// A section header.
	section, saddr, soffset, ssize, slink uint64
	// A symbol.
	symbol, stinfo, stshndx, stvalue, stsize uint64
	symShift                                 uint // where a relocation's info has its symbol
}

func (f *File) layout() *layout {
	if f.Class == elf.ELFCLASS32 {
		return &layout{
			word: 4, header: 52, phoff: 28, shoff: 32, phsize: 42, phnum: 44, shsize: 46, shnum: 48, shstr: 50,
			segment: 32, poffset: 4, pvaddr: 8, pfilesz: 16, pmemsz: 20, pflags: 24,
			section: 40, saddr: 12, soffset: 16, ssize: 20, slink: 24,
			symbol: 16, stvalue: 4, stsize: 8, stinfo: 12, stshndx: 14,
			symShift: 8,
		}
	}
	return &layout{
		word: 8, header: 64, phoff: 32, shoff: 40, phsize: 54, phnum: 56, shsize: 58, shnum: 60, shstr: 62,
		segment: 56, pflags: 4, poffset: 8, pvaddr: 16, pfilesz: 32, pmemsz: 40,
		section: 64, saddr: 16, soffset: 24, ssize: 32, slink: 40,
		symbol: 24, stinfo: 4, stshndx: 6, stvalue: 8, stsize: 16,
		symShift: 32,
	}
}

// at reads an address or a size from a structure.
func (l *layout) at(b []byte, off uint64) uint64 {
	if l.word == 4 {
		return uint64(le.Uint32(b[off:]))
	}
	return le.Uint64(b[off:])
}

// cut keeps of an address what the class has.
func (l *layout) cut(v uint64) uint64 {
	if l.word == 4 {
		return uint64(uint32(v))
	}
	return v
}

// WordSize is the size of an address in bytes.
func (f *File) WordSize() uint64 { return f.words.word }

// Word reads an address.
func (f *File) Word(addr uint64) (uint64, bool) {
	b := f.Bytes(addr, f.words.word)
	if b == nil {
		return 0, false
	}
	return f.words.at(b, 0), true
}
