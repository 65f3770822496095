package object

import (
	"debug/elf"
	"sort"
	"strconv"
)

// Kinds of relocations that matter here.
const (
	ROther     = uint32(iota)
	R64        // a symbol's address, plus the addend
	RCopy      // a symbol's content
	RGlobDat   // a symbol's address
	RJumpSlot  // a symbol's address, when it is first called
	RRelative  // the load base plus the addend
	RIRelative // what the function at the load base plus the addend returns
	RTLS       // what describes a thread-local variable
	RPC        // a distance to a symbol from where it lies
)

// relocKind returns the kind of a machine's relocation type (psABI x86-64 table
// 4.9; psABI i386 table 4.9; ELF for the Arm 64-bit Architecture, "Dynamic relocations").
func relocKind(m elf.Machine, t uint32) uint32 {
	switch m {
	case elf.EM_X86_64:
		switch elf.R_X86_64(t) {
		case elf.R_X86_64_64:
			return R64
		case elf.R_X86_64_COPY:
			return RCopy
		case elf.R_X86_64_GLOB_DAT:
			return RGlobDat
		case elf.R_X86_64_JMP_SLOT:
			return RJumpSlot
		case elf.R_X86_64_RELATIVE:
			return RRelative
		case elf.R_X86_64_IRELATIVE:
			return RIRelative
		case elf.R_X86_64_DTPMOD64, elf.R_X86_64_TLSDESC:
			return RTLS
		}
	case elf.EM_386:
		switch elf.R_386(t) {
		case elf.R_386_32:
			return R64
		case elf.R_386_PC32:
			return RPC
		case elf.R_386_COPY:
			return RCopy
		case elf.R_386_GLOB_DAT:
			return RGlobDat
		case elf.R_386_JMP_SLOT:
			return RJumpSlot
		case elf.R_386_RELATIVE:
			return RRelative
		case elf.R_386_IRELATIVE:
			return RIRelative
		case elf.R_386_TLS_DTPMOD32, elf.R_386_TLS_DESC, elf.R_386_TLS_TPOFF, elf.R_386_TLS_TPOFF32, elf.R_386_TLS_DTPOFF32:
			return RTLS
		}
	case elf.EM_AARCH64:
		switch elf.R_AARCH64(t) {
		case elf.R_AARCH64_ABS64:
			return R64
		case elf.R_AARCH64_COPY:
			return RCopy
		case elf.R_AARCH64_GLOB_DAT:
			return RGlobDat
		case elf.R_AARCH64_JUMP_SLOT:
			return RJumpSlot
		case elf.R_AARCH64_RELATIVE:
			return RRelative
		case elf.R_AARCH64_IRELATIVE:
			return RIRelative
		case elf.R_AARCH64_TLS_DTPMOD64, elf.R_AARCH64_TLSDESC, elf.R_AARCH64_TLS_TPREL64:
			return RTLS
		}
	}
	return ROther
}

const (
	dtRelr   = elf.DynTag(36)
	dtRelrSz = elf.DynTag(35)
)

func (f *File) dynamic() {
	strtab := f.Bytes(f.dyn[elf.DT_STRTAB], f.dyn[elf.DT_STRSZ])
	str := func(tag elf.DynTag) string {
		if v, ok := f.dyn[tag]; ok {
			return cstr(strtab, v)
		}
		return ""
	}
	needed := f.Needed[:0]
	for _, n := range f.Needed {
		v, _ := strconv.ParseUint(n, 10, 64)
		if s := cstr(strtab, v); s != "" {
			needed = append(needed, s)
		} else {
			f.warn("unreadable DT_NEEDED")
		}
	}
	f.Needed = needed
	f.Soname, f.RPath, f.RunPath = str(elf.DT_SONAME), str(elf.DT_RPATH), str(elf.DT_RUNPATH)
	f.Flags1 = f.dyn[elf.DT_FLAGS_1]
	if addr, ok := f.dyn[elf.DT_SYMTAB]; ok {
		n := f.symbolCount(addr)
		if tab := f.Bytes(addr, n*f.words.symbol); tab != nil {
			f.DynSyms = f.symbols(tab, strtab)
			f.versions(strtab)
		} else if n > 0 {
			f.warn("dynamic symbol table lies outside of the file")
		}
	}
	f.relocations()
	for _, t := range []elf.DynTag{elf.DT_INIT, elf.DT_FINI} {
		if v := f.dyn[t]; v != 0 {
			f.Init = append(f.Init, v)
		}
	}
	for _, t := range [][2]elf.DynTag{{elf.DT_PREINIT_ARRAY, elf.DT_PREINIT_ARRAYSZ}, {elf.DT_INIT_ARRAY, elf.DT_INIT_ARRAYSZ}, {elf.DT_FINI_ARRAY, elf.DT_FINI_ARRAYSZ}} {
		addr, size := f.dyn[t[0]], f.dyn[t[1]]
		if addr != 0 && size > 0 && f.Bytes(addr, size) != nil {
			f.InitArrays = append(f.InitArrays, [2]uint64{addr, addr + size})
		}
	}
	if !f.HasDynamic && f.HasSections { // static: crt code walks these sections
		for _, s := range f.Sections {
			switch s.Name {
			case ".preinit_array", ".init_array", ".fini_array", ".ctors", ".dtors":
				f.InitArrays = append(f.InitArrays, [2]uint64{s.Addr, s.Addr + s.Size})
			}
		}
	}
}

// Dynamic returns the value of an entry of the dynamic table.
func (f *File) Dynamic(tag elf.DynTag) (uint64, bool) {
	v, ok := f.dyn[tag]
	return v, ok
}

// symbolCount finds the length of the dynamic symbol table, which no dynamic
// tag states: from DT_HASH, from DT_GNU_HASH, or up to the string table that
// follows it in practice.
func (f *File) symbolCount(symtab uint64) uint64 {
	n := uint64(0)
	if h := f.Bytes(f.dyn[elf.DT_HASH], 8); f.dyn[elf.DT_HASH] != 0 && h != nil {
		n = uint64(le.Uint32(h[4:]))
	} else if g := f.dyn[elf.DT_GNU_HASH]; g != 0 {
		n = f.gnuHashCount(g)
	}
	// Undefined symbols come before the hashed ones, but a table without any
	// hashed symbol still has them: relocations tell.
	if m := f.maxRelocSym(); m+1 > n {
		n = m + 1
	}
	if n == 0 {
		if s := f.dyn[elf.DT_STRTAB]; s > symtab {
			n = (s - symtab) / f.words.symbol
		}
	}
	return min(n, MaxSymbols)
}

func (f *File) gnuHashCount(addr uint64) uint64 {
	h := f.Bytes(addr, 16)
	if h == nil {
		return 0
	}
	nb, symoff, bloom := uint64(le.Uint32(h)), uint64(le.Uint32(h[4:])), uint64(le.Uint32(h[8:]))
	bucketAddr := addr + 16 + bloom*f.words.word
	buckets := f.Bytes(bucketAddr, nb*4)
	if buckets == nil {
		return 0
	}
	last := uint64(0)
	for i := range nb {
		last = max(last, uint64(le.Uint32(buckets[i*4:])))
	}
	if last < symoff {
		return symoff
	}
	chain := f.From(bucketAddr + nb*4 + (last-symoff)*4)
	for len(chain) >= 4 {
		last++
		if le.Uint32(chain)&1 != 0 {
			break
		}
		chain = chain[4:]
	}
	return last
}

// relTable is a table of relocations: rel says that the addends are where they
// are applied.
type relTable struct {
	data []byte
	rel  bool
}

// entry is the size of an entry of the table.
func (t *relTable) entry(l *layout) int {
	if t.rel {
		return int(2 * l.word)
	}
	return int(3 * l.word)
}

func (f *File) relTables() []relTable {
	var out []relTable
	add := func(addr, size uint64, rel bool) {
		if b := f.Bytes(addr, size); b != nil && (!rel || f.words.word == 4) {
			out = append(out, relTable{b, rel})
		}
	}
	add(f.dyn[elf.DT_RELA], f.dyn[elf.DT_RELASZ], false)
	add(f.dyn[elf.DT_REL], f.dyn[elf.DT_RELSZ], true)
	add(f.dyn[elf.DT_JMPREL], f.dyn[elf.DT_PLTRELSZ], f.dyn[elf.DT_PLTREL] == uint64(elf.DT_REL))
	if !f.HasDynamic {
		// Static programs relocate themselves (IRELATIVE) between
		// __rela_iplt_start and __rela_iplt_end, which is this section.
		for _, s := range f.Sections {
			switch s.Name {
			case ".rela.plt", ".rela.iplt", ".rela.dyn":
				add(s.Addr, s.Size, false)
			case ".rel.plt", ".rel.iplt", ".rel.dyn":
				add(s.Addr, s.Size, true)
			}
		}
	}
	return out
}

func (f *File) maxRelocSym() uint64 {
	m := uint64(0)
	l := f.words
	for _, t := range f.relTables() {
		for b := t.data; len(b) >= t.entry(l); b = b[t.entry(l):] {
			m = max(m, l.at(b, l.word)>>l.symShift)
		}
	}
	return m
}

func (f *File) relocations() {
	l := f.words
	for _, t := range f.relTables() {
		for b := t.data; len(b) >= t.entry(l); b = b[t.entry(l):] {
			info := l.at(b, l.word)
			typ := uint32(info)
			if l.word == 4 {
				typ &= 0xff
			}
			r := Reloc{Addr: l.at(b, 0), Type: relocKind(f.Machine, typ), Sym: int32(info >> l.symShift)}
			if t.rel {
				r.Addend = f.addendAt(&r)
			} else {
				r.Addend = l.at(b, 2*l.word)
			}
			if r.Sym == 0 {
				r.Sym = -1
			}
			if int(r.Sym) >= len(f.DynSyms) {
				f.warn("relocation against a symbol outside of the table")
				continue
			}
			f.Relocs = append(f.Relocs, r)
		}
	}
	f.relr()
	sort.SliceStable(f.Relocs, func(i, j int) bool { return f.Relocs[i].Addr < f.Relocs[j].Addr })
}

// addendAt is the addend that lies where a relocation is applied. A slot that
// gets a symbol's address has none, whatever lies there (psABI i386, table 4.9:
// GLOB_DAT and JMP_SLOT are the symbol alone).
func (f *File) addendAt(r *Reloc) uint64 {
	switch r.Type {
	case R64, RRelative, RIRelative, RPC:
		v, _ := f.Word(r.Addr)
		return v
	}
	return 0
}

// relr unpacks DT_RELR (gABI "Relative relocation table"): an even word is an
// address, an odd one a bitmap of the words that follow, one less than a word
// has bits.
func (f *File) relr() {
	b := f.Bytes(f.dyn[dtRelr], f.dyn[dtRelrSz])
	if f.dyn[dtRelr] == 0 {
		return
	}
	word := f.words.word
	add := func(addr uint64) {
		if v, ok := f.Word(addr); ok && len(f.Relocs) < len(f.Data)/int(word)+1 {
			f.Relocs = append(f.Relocs, Reloc{Addr: addr, Addend: v, Sym: -1, Type: RRelative})
		}
	}
	where := uint64(0)
	for ; uint64(len(b)) >= word; b = b[word:] {
		e := f.words.at(b, 0)
		if e&1 == 0 {
			add(e)
			where = e + word
			continue
		}
		for i := uint64(0); i < 8*word-1; i++ {
			if e>>(i+1)&1 != 0 {
				add(where + i*word)
			}
		}
		where += (8*word - 1) * word
	}
}

// versions attaches version names to DynSyms (LSB, "Symbol Versioning").
func (f *File) versions(strtab []byte) {
	addr, ok := f.dyn[elf.DT_VERSYM]
	if !ok {
		return
	}
	vs := f.Bytes(addr, uint64(len(f.DynSyms))*2)
	if vs == nil {
		f.warn("symbol versions lie outside of the file")
		return
	}
	names := map[uint16]string{}
	left := len(f.Data) // entries and names lie apart, so that there can't be more of them
	name := func(idx uint16, off uint32) bool {
		s := cstr(strtab, uint64(off))
		names[idx&0x7fff] = s
		if left -= 16 + len(s); left < 0 {
			f.warn("symbol versions overlap")
		}
		return left >= 0
	}
	def := f.dyn[elf.DT_VERDEF]
	for n := uint64(0); n < f.dyn[elf.DT_VERDEFNUM] && n < 1<<15; n++ {
		b := f.Bytes(def, 20)
		if b == nil {
			break
		}
		if aux := f.Bytes(def+uint64(le.Uint32(b[12:])), 8); aux != nil {
			if le.Uint16(b[2:])&1 == 0 { // not VER_FLG_BASE
				if !name(le.Uint16(b[4:]), le.Uint32(aux)) {
					return
				}
			}
		}
		next := uint64(le.Uint32(b[16:]))
		if next == 0 {
			break
		}
		def += next
	}
	need := f.dyn[elf.DT_VERNEED]
	for n := uint64(0); n < f.dyn[elf.DT_VERNEEDNUM] && n < 1<<15; n++ {
		b := f.Bytes(need, 16)
		if b == nil {
			break
		}
		aux := need + uint64(le.Uint32(b[8:]))
		for range le.Uint16(b[2:]) {
			a := f.Bytes(aux, 16)
			if a == nil {
				break
			}
			if !name(le.Uint16(a[6:]), le.Uint32(a[8:])) {
				return
			}
			next := uint64(le.Uint32(a[12:]))
			if next == 0 {
				break
			}
			aux += next
		}
		next := uint64(le.Uint32(b[12:]))
		if next == 0 {
			break
		}
		need += next
	}
	for i := range f.DynSyms {
		v := le.Uint16(vs[i*2:])
		f.DynSyms[i].Hidden = v&0x8000 != 0
		f.DynSyms[i].Version = names[v&0x7fff]
	}
}
