package main

import (
	"encoding/binary"
	"slices"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
)

// recordOf is a record as the kernel's side writes it.
func recordOf(kind uint32, flags uint16, parts ...string) []byte {
	ev := bpf.MonitorEvent{Kind: kind, Pid: 1, Image: 2, Inode: 3}
	for i, p := range parts {
		ev.Texts[i].Len, ev.Texts[i].Flags = uint16(len(p)), flags
	}
	raw := slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&ev)), eventSize))
	for _, p := range parts {
		raw = append(raw, p...)
	}
	return raw
}

// FuzzRecord reads records whose texts the container chose: names of files,
// arguments, names of threads.
func FuzzRecord(f *testing.F) {
	f.Add(recordOf(kindExec, 0, "sh\x00bin\x00", "/bin/sh\x00", "", "/\x00", "sh\x00-c\x00"))
	f.Add(recordOf(kindMapping, textDeleted|textTruncated, "a\xff\x00b\x00"))
	f.Add(recordOf(kindImage, textPseudo, "memfd:x\x00"))
	f.Add(binary.LittleEndian.AppendUint64(recordOf(kindDenied, textUnreachable), 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ev, rest, ok := splitRecord(raw)
		if !ok {
			return
		}
		got := splitTexts(ev, rest)
		all := append([]string{got.path, got.filename, got.interp, got.cwd, comm(ev)}, got.args...)
		size := 0
		for _, text := range all {
			size += len(text)
			if !utf8.ValidString(text) {
				t.Errorf("%q can't be sent", text)
			}
		}
		if limit := 3*len(raw) + 256; size > limit { // each broken byte becomes three
			t.Errorf("%d bytes of text from a record of %d", size, len(raw))
		}
		if between := (script{asked: got.filename, path: got.cwd, interp: got.interp, args: got.args}).nested(); len(between) > 2*scriptDepth+1 {
			t.Errorf("%d nested scripts", len(between))
		}
		if name := fromDirFD(got.filename, got.path); !utf8.ValidString(name) {
			t.Errorf("%q can't be sent", name)
		}
	})
}
