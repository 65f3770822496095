package main

import (
	"unsafe"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
)

// eventSize is the size of the fixed part of a record. The generated type has
// the layout of the kernel's side, which wrote it on this machine.
const eventSize = int(unsafe.Sizeof(bpf.MonitorEvent{}))

// splitRecord splits a record into its fixed part and its texts.
func splitRecord(raw []byte) (*bpf.MonitorEvent, []byte, bool) {
	if len(raw) < eventSize {
		return nil, nil, false
	}
	var ev bpf.MonitorEvent
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&ev)), eventSize), raw)
	return &ev, raw[eventSize:], true
}
