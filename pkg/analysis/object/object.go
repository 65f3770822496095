// Package object reads ELF files the way the kernel and the dynamic loader do:
// by program headers and the dynamic table. Section headers are used where
// they are present and make sense, and never needed.
//
// Everything here parses bytes from a container: every offset is checked, every
// count is bounded by the file's size, and nothing panics.
//
// Sources: System V ABI (gABI) chapters 4 and 5, the x86-64 and AArch64 psABIs,
// the LSB (symbol versions, .eh_frame and .eh_frame_hdr).
package object

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
)

// Limits on one object. Larger ones are rejected with ErrTooLarge.
const (
	// MaxSize in bytes; the largest programs that are shipped (browsers) have
	// a few hundred MiB.
	MaxSize = 1 << 30
	// MaxSymbols is the number of symbols read from one table.
	MaxSymbols = 4 << 20
	// maxHeaders is the number of program headers that the kernel accepts
	// (load_elf_phdrs in fs/binfmt_elf.c: 64 KiB of them).
	maxHeaders = 65536 / 56
)

// Errors that callers tell apart.
var (
	ErrNotELF      = errors.New("not an ELF file")
	ErrUnsupported = errors.New("unsupported ELF file")
	ErrMalformed   = errors.New("malformed ELF file")
	ErrTooLarge    = errors.New("object too large")
)

// Segment is one PT_LOAD.
type Segment struct {
	Addr, MemSize    uint64
	Offset, FileSize uint64
	Flags            elf.ProgFlag
}

// Section is one allocated section, or a segment (part) standing in for one
// when there are no section headers.
type Section struct {
	Name       string
	Addr, Size uint64
	Exec       bool
	Write      bool
	NoBits     bool // occupies no bytes in the file
}

// Symbol is one entry of .dynsym or .symtab.
type Symbol struct {
	Name    string
	Version string // "" when unversioned
	Hidden  bool   // not the default version
	Addr    uint64
	Size    uint64
	Type    elf.SymType
	Bind    elf.SymBind
	Defined bool
}

// Reloc is one dynamic relocation that makes a pointer.
type Reloc struct {
	Addr   uint64 // where
	Addend uint64
	Sym    int32  // index in DynSyms, -1 when none
	Type   uint32 // a kind: ROther, R64, ...
}

// FDE is one function's range from .eh_frame.
type FDE struct {
	Start, End uint64
	LSDA       uint64 // address of the table of its landing pads, 0 when there is none
}

// File is a parsed object. The slices refer to the bytes given to Parse.
type File struct {
	Data     []byte
	Machine  elf.Machine
	Class    elf.Class
	Type     elf.Type
	Entry    uint64
	Segments []Segment // by address
	Sections []Section // by address, only allocated ones
	Interp   string
	Needed   []string
	Soname   string
	RPath    string
	RunPath  string
	Flags1   uint64 // DT_FLAGS_1
	DynSyms  []Symbol
	Symtab   []Symbol
	Relocs   []Reloc  // by address
	Init     []uint64 // DT_INIT, DT_FINI and the arrays' contents (unrelocated)
	// InitArrays holds the address ranges of the (pre)init and fini arrays.
	InitArrays [][2]uint64
	FDEs       []FDE // by start, non-overlapping
	HasDynamic bool
	// HasSections is false when the section headers are missing or nonsense.
	HasSections bool
	// IsPIE is true when addresses are relative to a load base.
	IsPIE bool
	// GoPCLN is the address and size of Go's function table, size 0 when none.
	GoPCLN [2]uint64
	// RelRO is the range that the loader makes read-only after relocation.
	RelRO [2]uint64
	// TLS is the range of the initial thread-local data that the file holds.
	TLS [2]uint64
	// Warnings lists tables that could not be read in full.
	Warnings []string

	dyn   map[elf.DynTag]uint64
	words *layout
}

var le = binary.LittleEndian

// IsELF reports whether b starts with the ELF magic.
func IsELF(b []byte) bool { return len(b) >= 4 && string(b[:4]) == elf.ELFMAG }

// Parse reads an object. It keeps data and never changes it.
func Parse(data []byte) (*File, error) {
	if !IsELF(data) {
		return nil, ErrNotELF
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(data), MaxSize)
	}
	if len(data) < 52 {
		return nil, fmt.Errorf("%w: truncated header", ErrMalformed)
	}
	f := &File{Data: data, dyn: map[elf.DynTag]uint64{}}
	f.Class = elf.Class(data[elf.EI_CLASS])
	if elf.Data(data[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%w: not little-endian", ErrUnsupported)
	}
	f.Type = elf.Type(le.Uint16(data[16:]))
	f.Machine = elf.Machine(le.Uint16(data[18:]))
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("%w: type %v is neither a program nor a shared object", ErrUnsupported, f.Type)
	}
	f.words = f.layout()
	if f.Class == elf.ELFCLASS32 && f.Machine != elf.EM_386 {
		// Enough to say what it is; no other 32-bit code is analysed.
		return f, nil
	}
	if f.Class != elf.ELFCLASS32 && f.Class != elf.ELFCLASS64 || uint64(len(data)) < f.words.header {
		return nil, fmt.Errorf("%w: class %v", ErrUnsupported, f.Class)
	}
	f.Entry = f.words.at(data, 24)
	f.IsPIE = f.Type == elf.ET_DYN
	if err := f.programHeaders(); err != nil {
		return nil, err
	}
	f.sectionHeaders()
	if !f.HasSections {
		f.sectionsFromSegments()
	}
	f.dynamic()
	f.ehFrame()
	f.goTable()
	return f, nil
}

func (f *File) warn(format string, args ...any) {
	if len(f.Warnings) < 32 {
		f.Warnings = append(f.Warnings, fmt.Sprintf(format, args...))
	}
}

func (f *File) programHeaders() error {
	l := f.words
	off := l.at(f.Data, l.phoff)
	size := uint64(le.Uint16(f.Data[l.phsize:]))
	num := uint64(le.Uint16(f.Data[l.phnum:]))
	if num == 0 || size < l.segment || off > uint64(len(f.Data)) || off+size*num > uint64(len(f.Data)) {
		return fmt.Errorf("%w: program headers lie outside of the file", ErrMalformed)
	}
	if num > maxHeaders {
		return fmt.Errorf("%w: %d program headers, the kernel takes %d", ErrMalformed, num, maxHeaders)
	}
	var dynOff, dynSize uint64
	for i := range num {
		p := f.Data[off+i*size:]
		typ := elf.ProgType(le.Uint32(p))
		flags := elf.ProgFlag(le.Uint32(p[l.pflags:]))
		poff, vaddr := l.at(p, l.poffset), l.at(p, l.pvaddr)
		filesz, memsz := l.at(p, l.pfilesz), l.at(p, l.pmemsz)
		if l.cut(vaddr+memsz) < vaddr || memsz > 1<<40 {
			return fmt.Errorf("%w: segment %d wraps around", ErrMalformed, i)
		}
		if poff > uint64(len(f.Data)) || filesz > uint64(len(f.Data))-poff {
			if typ == elf.PT_LOAD {
				return fmt.Errorf("%w: segment %d lies outside of the file (truncated?)", ErrMalformed, i)
			}
			continue
		}
		switch typ {
		case elf.PT_LOAD:
			if filesz > memsz {
				filesz = memsz
			}
			f.Segments = append(f.Segments, Segment{vaddr, memsz, poff, filesz, flags})
		case elf.PT_INTERP:
			b := f.Data[poff : poff+filesz]
			if n := len(b); n > 0 && n <= 4096 && b[n-1] == 0 {
				f.Interp = string(b[:n-1])
			}
		case elf.PT_DYNAMIC:
			dynOff, dynSize = poff, filesz
			f.HasDynamic = true
		case elf.PT_GNU_RELRO:
			f.RelRO = [2]uint64{vaddr, vaddr + memsz}
		case elf.PT_TLS:
			f.TLS = [2]uint64{vaddr, vaddr + filesz}
		case elf.PT_GNU_EH_FRAME:
			f.dyn[ehFrameHdrTag] = vaddr
		}
	}
	if len(f.Segments) == 0 {
		return fmt.Errorf("%w: no loadable segment", ErrMalformed)
	}
	sort.Slice(f.Segments, func(i, j int) bool { return f.Segments[i].Addr < f.Segments[j].Addr })
	if err := f.checkSegments(); err != nil {
		return err
	}
	for ; dynSize >= 2*l.word; dynOff, dynSize = dynOff+2*l.word, dynSize-2*l.word {
		tag := elf.DynTag(int64(l.at(f.Data, dynOff)))
		val := l.at(f.Data, dynOff+l.word)
		if tag == elf.DT_NULL {
			break
		}
		if tag == elf.DT_NEEDED {
			if len(f.Needed) < 4096 {
				f.Needed = append(f.Needed, fmt.Sprint(val)) // resolved in dynamic
			}
			continue
		}
		f.dyn[tag] = val
	}
	return nil
}

// checkSegments refuses segments that overlap, and those that map the same
// bytes many times: a small file would stand for much code.
func (f *File) checkSegments() error {
	total := uint64(0)
	for i := range f.Segments {
		s := &f.Segments[i]
		total += s.FileSize
		if i > 0 && s.Addr < f.Segments[i-1].Addr+f.Segments[i-1].MemSize {
			return fmt.Errorf("%w: segments overlap at %#x", ErrMalformed, s.Addr)
		}
	}
	if total > 2*uint64(len(f.Data))+1<<20 {
		return fmt.Errorf("%w: its segments map %d bytes of a file of %d", ErrMalformed, total, len(f.Data))
	}
	return nil
}

// ehFrameHdrTag is not a tag of any ABI: it keeps PT_GNU_EH_FRAME beside the
// dynamic values.
const ehFrameHdrTag = elf.DynTag(-1)

// Bytes returns the file bytes behind [addr, addr+n), nil when they aren't all
// there.
func (f *File) Bytes(addr, n uint64) []byte {
	b := f.From(addr)
	if uint64(len(b)) < n {
		return nil
	}
	return b[:n]
}

// From returns the file bytes from addr to the end of its segment.
func (f *File) From(addr uint64) []byte {
	for i := range f.Segments {
		s := &f.Segments[i]
		if addr >= s.Addr && addr-s.Addr < s.FileSize {
			return f.Data[s.Offset+(addr-s.Addr) : s.Offset+s.FileSize]
		}
	}
	return nil
}

// U64 reads a 64-bit word.
func (f *File) U64(addr uint64) (uint64, bool) {
	b := f.Bytes(addr, 8)
	if b == nil {
		return 0, false
	}
	return le.Uint64(b), true
}

// CString reads a NUL-terminated string of at most limit bytes.
func (f *File) CString(addr uint64, limit int) (string, bool) {
	b := f.From(addr)
	if len(b) > limit {
		b = b[:limit]
	}
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), true
		}
	}
	return "", false
}

// InExec reports whether addr lies in an executable segment.
func (f *File) InExec(addr uint64) bool {
	for i := range f.Segments {
		s := &f.Segments[i]
		if s.Flags&elf.PF_X != 0 && addr >= s.Addr && addr-s.Addr < s.MemSize {
			return true
		}
	}
	return false
}

// InImage reports whether addr lies in any segment.
func (f *File) InImage(addr uint64) bool {
	for i := range f.Segments {
		s := &f.Segments[i]
		if addr >= s.Addr && addr-s.Addr < s.MemSize {
			return true
		}
	}
	return false
}

// SectionAt returns the index of the section that holds addr, -1 when none.
func (f *File) SectionAt(addr uint64) int {
	i := sort.Search(len(f.Sections), func(i int) bool { return f.Sections[i].Addr > addr }) - 1
	if i >= 0 && addr-f.Sections[i].Addr < f.Sections[i].Size {
		return i
	}
	return -1
}

func (f *File) sectionHeaders() {
	l := f.words
	off := l.at(f.Data, l.shoff)
	size := uint64(le.Uint16(f.Data[l.shsize:]))
	num := uint64(le.Uint16(f.Data[l.shnum:]))
	stridx := uint64(le.Uint16(f.Data[l.shstr:]))
	if off == 0 || num == 0 || size < l.section || off > uint64(len(f.Data)) || off+size*num > uint64(len(f.Data)) {
		return
	}
	hdr := func(i uint64) []byte { return f.Data[off+i*size:] }
	content := func(h []byte) []byte {
		o, n := l.at(h, l.soffset), l.at(h, l.ssize)
		if o > uint64(len(f.Data)) || n > uint64(len(f.Data))-o {
			return nil
		}
		return f.Data[o : o+n]
	}
	if stridx >= num {
		return
	}
	names := content(hdr(stridx))
	var secs []Section
	covered := uint64(0)
	left := len(f.Data)
	for i := range num {
		h := hdr(i)
		typ := elf.SectionType(le.Uint32(h[4:]))
		flags := elf.SectionFlag(l.at(h, 8))
		s := Section{Name: cstr(names, uint64(le.Uint32(h))), Addr: l.at(h, l.saddr), Size: l.at(h, l.ssize)}
		if left -= len(s.Name); left < 0 {
			f.Symtab = nil
			return // names that overlap: nobody's headers
		}
		switch typ {
		case elf.SHT_SYMTAB:
			// The gABI allows one such table.
			if link := uint64(le.Uint32(h[l.slink:])); link < num && f.Symtab == nil {
				f.Symtab = f.symbols(content(h), content(hdr(link)))
			}
		}
		if flags&elf.SHF_ALLOC == 0 || flags&elf.SHF_TLS != 0 && typ == elf.SHT_NOBITS || s.Size == 0 {
			continue
		}
		if s.Addr+s.Size < s.Addr || !f.InImage(s.Addr) || !f.InImage(s.Addr+s.Size-1) {
			f.Symtab = nil
			return // headers that contradict the segments are not believed
		}
		s.Exec = flags&elf.SHF_EXECINSTR != 0
		s.Write = flags&elf.SHF_WRITE != 0
		s.NoBits = typ == elf.SHT_NOBITS
		if s.Exec {
			covered += s.Size
		}
		secs = append(secs, s)
	}
	sort.Slice(secs, func(i, j int) bool { return secs[i].Addr < secs[j].Addr })
	for i := 1; i < len(secs); i++ {
		if secs[i].Addr < secs[i-1].Addr+secs[i-1].Size {
			f.Symtab = nil
			return
		}
	}
	if covered == 0 {
		return
	}
	f.Sections, f.HasSections = secs, true
}

// sectionsFromSegments makes one section of every segment, cut at the RELRO
// boundary and where the file's bytes end.
func (f *File) sectionsFromSegments() {
	add := func(name string, from, to uint64, seg *Segment, nobits bool) {
		if to > from {
			f.Sections = append(f.Sections, Section{Name: name, Addr: from, Size: to - from,
				Exec: seg.Flags&elf.PF_X != 0, Write: seg.Flags&elf.PF_W != 0, NoBits: nobits})
		}
	}
	for i := range f.Segments {
		s := &f.Segments[i]
		from, end := s.Addr, s.Addr+s.FileSize
		if r := f.RelRO; r[1] > from && r[1] < end && r[0] <= from {
			add("relro", from, r[1], s, false)
			from = r[1]
		}
		add("segment", from, end, s, false)
		add("zero", end, s.Addr+s.MemSize, s, true)
	}
}

func cstr(b []byte, off uint64) string {
	if off >= uint64(len(b)) {
		return ""
	}
	b = b[off:]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
		if i > 1<<16 {
			break
		}
	}
	return ""
}

func (f *File) symbols(tab, str []byte) []Symbol {
	l := f.words
	n := len(tab) / int(l.symbol)
	if n > MaxSymbols {
		f.warn("symbol table cut at %d entries", MaxSymbols)
		n = MaxSymbols
	}
	out := make([]Symbol, n)
	// Names may overlap; those of real tables hardly do.
	names := 4*len(f.Data) + 1<<16
	for i := range out {
		e := tab[i*int(l.symbol):]
		if names < 0 {
			f.warn("symbol table cut at %d entries, whose names are longer than the file", i)
			return out[:i]
		}
		out[i] = Symbol{
			Name: cstr(str, uint64(le.Uint32(e))), Addr: l.at(e, l.stvalue), Size: l.at(e, l.stsize),
			Type: elf.ST_TYPE(e[l.stinfo]), Bind: elf.ST_BIND(e[l.stinfo]), Defined: le.Uint16(e[l.stshndx:]) != 0,
		}
		names -= len(out[i].Name)
	}
	return out
}
