package floor

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
)

// program returns a static ELF executable of this machine that ends at once.
// Its code is never reached: the tracer kills it when execve has succeeded.
func program() []byte {
	const base, headers = 0x400000, 64 + 56
	machine, code := elf.EM_X86_64, []byte{0x0f, 0x0b} // ud2
	if runtime.GOARCH == "arm64" {
		machine, code = elf.EM_AARCH64, []byte{0, 0, 0, 0} // udf #0
	}
	size := uint64(headers + len(code))
	var b bytes.Buffer
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	load := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000,
	}
	// Writes to a bytes.Buffer of fixed-size values cannot go wrong.
	_ = binary.Write(&b, binary.LittleEndian, header)
	_ = binary.Write(&b, binary.LittleEndian, load)
	b.Write(code)
	return b.Bytes()
}
