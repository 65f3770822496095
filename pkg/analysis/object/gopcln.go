package object

// Magic numbers of Go's pclntab header (runtime/symtab.go, moduledata):
// Go 1.20 and later, 1.18, 1.16, 1.2.
const (
	GoMagic120 = 0xfffffff1
	GoMagic118 = 0xfffffff0
	GoMagic116 = 0xfffffffa
	GoMagic12  = 0xfffffffb
)

// goTable finds Go's function table by section name, or by its header in
// read-only data when the sections are gone.
func (f *File) goTable() {
	for _, s := range f.Sections {
		if (s.Name == ".gopclntab" || s.Name == ".data.rel.ro.gopclntab") && s.Size > 16 {
			f.GoPCLN = [2]uint64{s.Addr, s.Size}
			return
		}
	}
	for _, s := range f.Sections {
		if s.Exec || s.NoBits || f.HasSections && s.Name != ".rodata" && s.Name != ".data.rel.ro" {
			continue
		}
		b := f.Bytes(s.Addr, s.Size)
		for i := 0; i+8 <= len(b); i += 16 {
			m := le.Uint32(b[i:])
			if (m == GoMagic120 || m == GoMagic118 || m == GoMagic116 || m == GoMagic12) &&
				b[i+4] == 0 && b[i+5] == 0 && b[i+6] == 1 && uint64(b[i+7]) == f.words.word {
				f.GoPCLN = [2]uint64{s.Addr + uint64(i), s.Size - uint64(i)}
				return
			}
		}
	}
}
