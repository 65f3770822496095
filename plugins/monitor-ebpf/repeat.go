package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Indices into the counters of repeated events; enum repeat in seen.h.
const (
	repeatExec    = 0
	repeatMapping = 1
	repeatExit    = 2
)

// seenBatch is how many entries of the map are read at once.
const seenBatch = 1024

// repeats is what the kernel's side counted instead of sending it.
type repeats struct {
	total *confinev1.Repeated
	byKey map[bpf.MonitorKey]uint64
}

func (w *watch) repeated() (repeats, error) {
	r := repeats{total: &confinev1.Repeated{}, byKey: map[bpf.MonitorKey]uint64{}}
	for index, at := range map[uint32]*uint64{
		repeatExec: &r.total.Execs, repeatMapping: &r.total.Mappings, repeatExit: &r.total.Exits,
	} {
		sum, err := perCPU(w.objs.Repeats, index)
		if err != nil {
			return r, fmt.Errorf("read the counts of repeated events: %w", err)
		}
		*at = sum
	}
	var cursor ebpf.MapBatchCursor
	keys, times := make([]bpf.MonitorKey, seenBatch), make([]uint64, seenBatch)
	for {
		n, err := w.objs.Seen.BatchLookup(&cursor, keys, times, nil)
		for i := range n {
			if times[i] > 0 {
				r.byKey[keys[i]] = times[i]
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return r, nil
		}
		if err != nil {
			return r, fmt.Errorf("read what was repeated: %w", err)
		}
	}
}

// perCPU adds up a counter of a per-processor array.
func perCPU(m *ebpf.Map, index uint32) (sum uint64, err error) {
	var counts []uint64
	if err := m.Lookup(index, &counts); err != nil {
		return 0, err
	}
	for _, n := range counts {
		sum += n
	}
	return sum, nil
}
