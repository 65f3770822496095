package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// What ended before the plugin could look at it is lost, and nothing else is:
// the kernel's side can't look at a mapping while another thread changes the
// address space.
func TestEndedBeforeItsMappingWasRead(t *testing.T) {
	const reason, tries = "a process ended before its mapping could be read", 100
	client := start(t)
	busy, file := compile(t, "busy.c"), compile(t, "nop.c", "-static")
	for range tries {
		tr := newTree(t, nil, busy, file)
		s := observe(t, client, &confinev1.Scope{Pid: tr.pid()}, func() { stopped(t, client, tr.run) })
		lost := s.lossesOf()[reason]
		if seen := uint64(s.mapped()[file]); seen+lost != 1 || s.snapshot.GetLost() != lost {
			t.Fatalf("%d mappings seen, lost %v; want the one mapping seen or lost", seen, s.lossesOf())
		}
		if lost > 0 {
			return
		}
	}
	t.Fatalf("the kernel's side could look at the mapping %d times", tries)
}

// Records that make no sense are counted, one by one, and the others go on.
func TestMalformedRecords(t *testing.T) {
	client := start(t)
	tr := newTree(t, nil, "/bin/true")
	s := observe(t, client, &confinev1.Scope{Pid: tr.pid()}, func() {
		ring := ringOf(t, client.PID())
		writeRecord(t, ring, 8)   // shorter than any
		writeRecord(t, ring, 512) // of kind 0, which there isn't
		tr.run()
	})
	if got := s.lossesOf(); len(got) != 1 || got["a record of the kernel's side is malformed"] != 2 || s.snapshot.GetLost() != 2 {
		t.Errorf("lost %v, want both records for being malformed", got)
	}
	s.execOf(t, real(t, "/bin/true"))
}

// mapID is what the kernel tells of a descriptor of a map.
var mapID = regexp.MustCompile(`(?m)^map_type:\t27\n(?:.*\n)*?map_id:\t(\d+)$`)

// ringOf opens the ring buffer of a plugin that has one watch.
func ringOf(t *testing.T, pid int) *ebpf.Map {
	t.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		text, err := os.ReadFile(info)
		if err != nil {
			continue // closed meanwhile
		}
		found := mapID.FindSubmatch(text)
		if found == nil {
			continue
		}
		id, err := strconv.ParseUint(string(found[1]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	t.Fatal("the plugin has no ring buffer")
	return nil
}

// writeRecord has the kernel write a record of zeros, as only its side can.
func writeRecord(t *testing.T, ring *ebpf.Map, size int32) {
	t.Helper()
	code := asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	for at := int16(8); int32(at) <= size; at += 8 {
		code = append(code, asm.StoreMem(asm.RFP, -at, asm.R0, asm.DWord))
	}
	code = append(code,
		asm.LoadMapPtr(asm.R1, ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -size),
		asm.Mov.Imm(asm.R3, size),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Return(),
	)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: code})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if code, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 14)}); err != nil || code != 0 {
		t.Fatalf("write a record: %d, %v", int32(code), err)
	}
}
