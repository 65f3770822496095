package main

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// lossInterval is how often losses in the kernel are looked for.
const lossInterval = time.Second

// watch is the programs, maps and reader of one scope.
type watch struct {
	objs   bpf.MonitorObjects
	links  []link.Link
	reader *ringbuf.Reader
	dec    *decoder
	every  bool // each event is delivered

	seedBits [1024]uint64 // SEED_BITS of scope.h: processes that may be seeds
	seedings uint64       // how many seeds were put in

	flushMu sync.Mutex      // one flush at a time
	flushed chan struct{}   // a token for each flush that the reader has seen
	ended   chan struct{}   // closed when run returns
	lossMu  sync.Mutex      // guards the two below
	told    map[loss]uint64 // kernel-side losses that the sink knows of
	missed  map[string]uint64
	sink    *monitor.Sink
}

// load creates the maps and loads the programs for a scope. sink may be nil
// when nothing is going to run.
func load(scope *confinev1.Scope, sink *monitor.Sink) (*watch, error) {
	spec, err := bpf.LoadMonitor()
	if err != nil {
		return nil, fmt.Errorf("read the eBPF programs: %w", err)
	}
	return loadSpec(spec, scope, sink)
}

func loadSpec(spec *ebpf.CollectionSpec, scope *confinev1.Scope, sink *monitor.Sink) (*watch, error) {
	own, err := ownMountNamespace()
	if err != nil {
		return nil, err
	}
	level, known := cgroupLevel(scope.GetCgroupId())
	for name, value := range map[string]any{
		"scope_cgroup":      scope.GetCgroupId(),
		"scope_level":       level,
		"scope_level_known": flag(known),
		"scope_mnt_ns":      uint32(scope.GetMountNamespace()),
		"scope_pid_ns":      uint32(scope.GetPidNamespace()),
		"own_mnt_ns":        own,
		"every_event":       flag(scope.GetEveryEvent()),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := sizeRing(spec); err != nil {
		return nil, err
	}
	w := &watch{
		flushed: make(chan struct{}),
		ended:   make(chan struct{}),
		told:    make(map[loss]uint64),
		missed:  make(map[string]uint64),
		sink:    sink,
		dec:     newDecoder(sink, scope.GetEveryEvent()),
		every:   scope.GetEveryEvent(),
	}
	if err := spec.LoadAndAssign(&w.objs, nil); err != nil {
		return nil, explain("load the eBPF programs", err)
	}
	w.reader, err = ringbuf.NewReader(w.objs.Ring)
	if err != nil {
		w.close()
		return nil, fmt.Errorf("open the ring buffer: %w", err)
	}
	return w, nil
}

// ringOption names the option that holds the size of the ring buffer of each
// watch in bytes, a power of two.
const ringOption = "ring-bytes"

// Sizes of the ring buffer in bytes where nothing else is configured: what fills
// it grows with the processors. A storm of executions at full speed writes some
// 5 MiB a second on two processors, where this lasts for more than a second in
// which the plugin doesn't run. There may be 32 watches at once.
const (
	ringPerProcessor = 4 << 20
	leastRing        = 8 << 20
	mostRing         = 16 << 20
)

// ringSize is the default for a number of processors.
func ringSize(processors int) uint32 {
	size := uint32(leastRing)
	for size < mostRing && int(size) < processors*ringPerProcessor {
		size *= 2
	}
	return size
}

// sizeRing gives the ring buffer its size.
func sizeRing(spec *ebpf.CollectionSpec) error {
	text := monitor.Option(ringOption)
	if text == "" {
		n, err := ebpf.PossibleCPU()
		if err != nil {
			return fmt.Errorf("count the processors: %w", err)
		}
		spec.Maps["ring"].MaxEntries = ringSize(n)
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || bits.OnesCount64(n) != 1 || n < uint64(os.Getpagesize()) {
		return fmt.Errorf("option %s is %q: give a power of two of at least %d", ringOption, text, os.Getpagesize())
	}
	spec.Maps["ring"].MaxEntries = uint32(n)
	return nil
}

// ownMountNamespace is the inode number of this process's mount namespace.
func ownMountNamespace() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
		return 0, fmt.Errorf("find the own mount namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// programs are in the order of attaching: what a later one relies on first.
func (w *watch) programs() []*ebpf.Program {
	return []*ebpf.Program{w.objs.OnMove, w.objs.OnFork, w.objs.OnExec, w.objs.OnEnd, w.objs.OnEnter, w.objs.OnExit}
}

// mechanisms names what is used, for people.
func (w *watch) mechanisms() []string {
	return []string{
		"tp_btf/cgroup_attach_task", "tp_btf/sched_process_fork", "tp_btf/sched_process_exec", "tp_btf/sched_process_exit",
		"tp_btf/sys_enter", "tp_btf/sys_exit",
		"task storage", "bpf_find_vma", "ring buffer",
	}
}

func (w *watch) attach() error {
	for _, p := range w.programs() {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return explain("attach to the tracepoints", err)
		}
		w.links = append(w.links, l)
	}
	return nil
}

func (w *watch) close() {
	for _, l := range w.links {
		_ = l.Close()
	}
	if w.reader != nil {
		_ = w.reader.Close()
	}
	_ = w.objs.Close()
}

// run reads events into the sink until ctx ends.
func (w *watch) run(ctx context.Context) error {
	defer close(w.ended)
	losses := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = w.reader.Close() })
	defer stop()
	go func() {
		defer close(losses)
		w.watchLosses(ctx)
	}()
	err := w.read(ctx)
	<-losses
	return err
}

// How long records may lie in the ring that nobody was woken for (they are
// those of repeated events, each of which was asked for), and how long mappings
// wait for the name of their process.
const (
	shortLook = 10 * time.Millisecond
	longLook  = 200 * time.Millisecond
)

func (w *watch) read(ctx context.Context) error {
	var rec ringbuf.Record
	look := shortLook
	for {
		switch {
		case w.every || w.dec.early.count > 0:
			w.reader.SetDeadline(time.Now().Add(look))
		default:
			w.reader.SetDeadline(time.Time{})
		}
		if err := w.sink.Wait(ctx); err != nil {
			return nil
		}
		err := w.reader.ReadInto(&rec)
		for err == nil && rec.Remaining > 0 && w.sink.Wait(ctx) == nil {
			w.dec.record(rec.RawSample)
			look = shortLook
			err = w.reader.ReadInto(&rec)
		}
		switch {
		case errors.Is(err, ringbuf.ErrFlushed):
			w.dec.early.giveUp()
			select {
			case w.flushed <- struct{}{}:
			case <-ctx.Done():
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			look = min(2*look, longLook)
			w.dec.early.giveUp()
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read the ring buffer: %w", err)
		default:
			w.dec.record(rec.RawSample)
		}
	}
}

// flush returns when everything that the kernel had written before is in the
// sink.
func (w *watch) flush(ctx context.Context) error {
	w.flushMu.Lock()
	defer w.flushMu.Unlock()
	if err := w.reader.Flush(); err != nil {
		return fmt.Errorf("flush the ring buffer: %w", err)
	}
	select {
	case <-w.flushed:
		return nil
	case <-w.ended:
		return monitor.ErrUnknownWatch
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *watch) watchLosses(ctx context.Context) {
	tick := time.NewTicker(lossInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.tellLosses()
		}
	}
}

// tellLosses tells the sink what the kernel lost since the last time.
func (w *watch) tellLosses() {
	w.lossMu.Lock()
	defer w.lossMu.Unlock()
	for why := range lossCount {
		sum, err := perCPU(w.objs.Lost, uint32(why))
		if err != nil {
			continue
		}
		w.sink.Lost(sum-w.told[why], why.String())
		w.told[why] = sum
	}
	w.sink.Lost(w.interruptions(), "a program in the kernel was interrupted")
}

// interruptions is how often programs in the kernel didn't run since the last
// time for being interrupted by themselves. It is called with lossMu held.
func (w *watch) interruptions() (sum uint64) {
	for _, p := range w.programs() {
		stats, err := p.Stats()
		if err != nil {
			continue
		}
		name := p.String()
		sum += stats.RecursionMisses - w.missed[name]
		w.missed[name] = stats.RecursionMisses
	}
	return sum
}

// snapshot returns what was recorded so far.
func (w *watch) snapshot(ctx context.Context) (*confinev1.SnapshotResponse, error) {
	calls, err := w.recorded()
	if err != nil {
		return nil, err
	}
	denials, err := w.denials()
	if err != nil {
		return nil, err
	}
	again, err := w.repeated()
	if err != nil {
		return nil, err
	}
	// After the maps were read, so that every image in them has its name.
	if err := w.flush(ctx); err != nil {
		return nil, err
	}
	w.tellLosses()
	again.total.Programs = w.dec.namePrograms(again.byKey)
	return &confinev1.SnapshotResponse{
		Recorded: w.dec.nameCalls(calls),
		Denied:   w.dec.nameDenials(denials),
		Repeated: again.total,
	}, nil
}

// recorded returns the calls made by image.
func (w *watch) recorded() (map[uint64]bpf.MonitorMade, error) {
	all := make(map[uint64]bpf.MonitorMade)
	var image uint64
	var slot uint32
	it := w.objs.Slots.Iterate()
	for it.Next(&image, &slot) {
		var made bpf.MonitorMade
		if err := w.objs.Calls.Lookup(slot, &made); err != nil {
			return nil, fmt.Errorf("read the recorded calls: %w", err)
		}
		all[image] = made
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the recorded calls: %w", err)
	}
	return all, nil
}

// denials returns the refused calls by place.
func (w *watch) denials() (map[bpf.MonitorPlace]bpf.MonitorDenial, error) {
	all := make(map[bpf.MonitorPlace]bpf.MonitorDenial)
	var at bpf.MonitorPlace
	var d bpf.MonitorDenial
	it := w.objs.Denials.Iterate()
	for it.Next(&at, &d) {
		all[at] = d
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the refused calls: %w", err)
	}
	return all, nil
}
