package floor

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
)

// faulting is code that is never reached: the tracer kills the program when
// its execve has succeeded.
func faulting() []byte {
	if runtime.GOARCH == "arm64" {
		return []byte{0, 0, 0, 0} // udf #0
	}
	return []byte{0x0f, 0x0b} // ud2
}

// waiting is code that calls ppoll without descriptors and without a limit, for
// ever.
func waiting() []byte {
	if runtime.GOARCH == "arm64" {
		return []byte{
			0x00, 0x00, 0x80, 0xd2, // mov x0, #0
			0x01, 0x00, 0x80, 0xd2, // mov x1, #0
			0x02, 0x00, 0x80, 0xd2, // mov x2, #0
			0x03, 0x00, 0x80, 0xd2, // mov x3, #0
			0x28, 0x09, 0x80, 0xd2, // mov x8, #73
			0x01, 0x00, 0x00, 0xd4, // svc #0
			0xfa, 0xff, 0xff, 0x17, // b to the beginning
		}
	}
	return []byte{
		0x31, 0xff, // xor edi, edi
		0x31, 0xf6, // xor esi, esi
		0x31, 0xd2, // xor edx, edx
		0x45, 0x31, 0xd2, // xor r10d, r10d
		0xb8, 0x0f, 0x01, 0x00, 0x00, // mov eax, 271
		0x0f, 0x05, // syscall
		0xeb, 0xee, // jmp to the beginning
	}
}

// program returns a static ELF executable of this machine that runs code.
func program(code []byte) []byte {
	const base, headers = 0x400000, 64 + 56
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
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
