package main

import (
	"bytes"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/plugins/monitor-ebpf/bpf"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Kinds of records; enum kind in event.h.
const (
	kindExec     = 1
	kindMapping  = 2
	kindExit     = 3
	kindDenied   = 4
	kindImage    = 5
	kindUnmapped = 6
	kindDirFD    = 7
)

// Texts of a record; enum slot_text in event.h.
const (
	textPath     = 0
	textFilename = 1
	textInterp   = 2
	textCwd      = 3
	textArgs     = 4
)

// maxDirFDs bounds the descriptors of execveat that are remembered.
const maxDirFDs = 4096

// unknownProcess names an image whose record was lost (and counted).
const unknownProcess = "(unknown)"

// decoder turns the kernel's records into events. record is called from one
// goroutine; the name methods from any.
type decoder struct {
	sink  *monitor.Sink
	every bool              // ends of processes are delivered
	dirfd map[uint32]string // by process: the file that its execveat names
	early *early

	mu      sync.Mutex
	images  map[uint64]string    // path by image
	objects map[objectKey]object // where refused calls came from
	// programs are executions that may be counted instead of sent, by key.
	programs map[bpf.MonitorKey]*confinev1.RepeatedExec
}

// objectKey is a refused call's place as the kernel knows it.
type objectKey = bpf.MonitorPlace

type object struct {
	path   string // "" when unknown
	offset uint64 // in the file, 0 when it is unknown
	ip     uint64
	comm   string
}

func newDecoder(sink *monitor.Sink, every bool) *decoder {
	return &decoder{
		sink:     sink,
		every:    every,
		early:    newEarly(func(m *confinev1.Mapping) { sink.Mapping(m) }),
		dirfd:    make(map[uint32]string),
		images:   make(map[uint64]string),
		objects:  make(map[objectKey]object),
		programs: make(map[bpf.MonitorKey]*confinev1.RepeatedExec),
	}
}

// record decodes one record of the ring buffer.
func (d *decoder) record(raw []byte) {
	ev, rest, ok := splitRecord(raw)
	if !ok {
		d.sink.Lost(1, "a record of the kernel's side is malformed")
		return
	}
	t := splitTexts(ev, rest)
	if t.truncated {
		d.sink.Lost(1, "a path was too long to be read whole")
	}
	switch ev.Kind {
	case kindExec:
		d.exec(ev, t)
	case kindMapping:
		d.mapping(ev.Image, &confinev1.Mapping{Time: ev.Time, Pid: int32(ev.Pid), Path: t.path, File: fileID(ev)})
	case kindUnmapped:
		d.unmapped(ev)
	case kindExit:
		delete(d.dirfd, ev.Pid)
		if !d.every {
			break // sent for the line above; counted in the kernel
		}
		d.sink.Exit(&confinev1.Exit{Time: ev.Time, Pid: int32(ev.Pid), Status: ev.Value})
	case kindImage:
		name := t.path
		if !t.reachable || ev.Value != 0 {
			name = "" // a runtime's own init: its file isn't the container's
		}
		d.name(ev.Image, name)
		d.early.named(ev.Image, name)
	case kindDirFD:
		if len(d.dirfd) >= maxDirFDs {
			clear(d.dirfd) // of threads that failed and ended
		}
		d.dirfd[ev.Pid] = t.path
	case kindDenied:
		d.denied(ev, t)
	default:
		d.sink.Lost(1, "a record of the kernel's side is malformed")
	}
}

func (d *decoder) exec(ev *bpf.MonitorEvent, t texts) {
	d.name(ev.Image, t.path)
	filename, asked := t.filename, t.filename
	if base, ok := d.dirfd[ev.Pid]; ok {
		filename = fromDirFD(filename, base)
		delete(d.dirfd, ev.Pid)
	}
	if !strings.HasPrefix(filename, "/") && !strings.HasPrefix(filename, memoryFile) {
		filename = strings.TrimSuffix(t.cwd, "/") + "/" + strings.TrimPrefix(filename, "./")
	}
	e := &confinev1.Exec{
		Time: ev.Time, Pid: int32(ev.Pid), Ppid: int32(ev.Ppid),
		Path: t.path, Filename: filename, Interpreter: t.interp,
		Comm: comm(ev), File: fileID(ev), CgroupId: ev.Cgroup, Origin: int32(ev.Origin),
	}
	if ev.Key != (bpf.MonitorKey{}) && !d.every {
		d.mu.Lock()
		d.programs[ev.Key] = &confinev1.RepeatedExec{Path: e.GetPath(), Filename: e.GetFilename(), File: e.GetFile()}
		d.mu.Unlock()
	}
	if t.interp != "" {
		e.Nested = script{ev.Pid, asked, filename, t.interp, t.args}.nested()
	}
	d.sink.Exec(e)
	d.early.named(ev.Image, t.path)
}

func (d *decoder) denied(ev *bpf.MonitorEvent, t texts) {
	path, offset := t.path, ev.Offset
	if path == "" {
		offset = 0 // it is the address itself then
	}
	if ev.VmaError != 0 {
		path, offset = objectAt(ev.Pid, ev.Addr)
	}
	key := objectKey{Image: ev.Image, Inode: ev.Inode, Offset: ev.Offset, Nr: uint32(ev.Value), Arch: ev.Arch}
	d.mu.Lock()
	process := d.imageName(ev.Image)
	d.objects[key] = object{path: path, offset: offset, ip: ev.Addr, comm: comm(ev)}
	d.mu.Unlock()
	d.sink.Denied(&confinev1.DeniedCall{
		Time: ev.Time, Pid: int32(ev.Pid), Nr: ev.Value, Ip: ev.Addr, Process: process,
		Object: path, Offset: offset, Ret: ev.Ret, Arch: ev.Arch, Count: 1, Signal: ev.Signal, Comm: comm(ev),
		Args: slices.Clone(ev.Args[:]),
	})
}

// name remembers the path of an image.
func (d *decoder) name(image uint64, path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.images[image]; ok && known != "" {
		return
	}
	d.images[image] = path
}

// mapping delivers a mapping with its process, as soon as that has a name.
func (d *decoder) mapping(image uint64, m *confinev1.Mapping) {
	path, known := d.processOf(image)
	if !known {
		d.early.hold(image, m)
		return
	}
	m.Process = path
	d.sink.Mapping(m)
}

// imageName is called with mu held.
func (d *decoder) imageName(image uint64) string {
	if name, ok := d.images[image]; ok {
		return name
	}
	return unknownProcess
}

// processOf returns the path of an image; known is false when no record has
// named it.
func (d *decoder) processOf(image uint64) (path string, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path, known = d.images[image]
	return path, known
}

// namePrograms lists how often executions were repeated, by path.
func (d *decoder) namePrograms(times map[bpf.MonitorKey]uint64) []*confinev1.RepeatedExec {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*confinev1.RepeatedExec
	for key, n := range times {
		if p := d.programs[key]; p != nil {
			out = append(out, &confinev1.RepeatedExec{Path: p.GetPath(), Filename: p.GetFilename(), File: p.GetFile(), Count: n})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].GetPath() < out[j].GetPath() || out[i].GetPath() == out[j].GetPath() && out[i].GetFilename() < out[j].GetFilename()
	})
	return out
}

// nameCalls merges the recorded calls by the path of their process.
func (d *decoder) nameCalls(calls map[uint64]bpf.MonitorMade) []*confinev1.RecordedCalls {
	d.mu.Lock()
	defer d.mu.Unlock()
	merged := make(map[string]bpf.MonitorMade)
	for image, made := range calls {
		name := d.imageName(image)
		sum := merged[name]
		for i := range made.Native {
			sum.Native[i] |= made.Native[i]
			sum.Compat[i] |= made.Compat[i]
		}
		merged[name] = sum
	}
	var out []*confinev1.RecordedCalls
	for name, made := range merged {
		out = append(out, &confinev1.RecordedCalls{
			Process: name, Nrs: numbers(made.Native[:]), CompatNrs: numbers(made.Compat[:]),
		})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Process < out[j].Process })
	return out
}

// nameDenials lists the refused calls with their counts, by time.
func (d *decoder) nameDenials(all map[bpf.MonitorPlace]bpf.MonitorDenial) []*confinev1.DeniedCall {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*confinev1.DeniedCall
	for at, n := range all {
		o := d.objects[at]
		out = append(out, &confinev1.DeniedCall{
			Time: n.Time, Pid: int32(n.Pid), Nr: int32(at.Nr), Ip: o.ip, Process: d.imageName(at.Image),
			Object: o.path, Offset: o.offset, Ret: n.Ret, Arch: at.Arch, Count: n.Count, Signal: n.Signal, Comm: o.comm,
			Args: slices.Clone(n.Args[:]),
		})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Time < out[j].Time })
	return out
}

// numbers lists the numbers of the bits that are set.
func numbers(words []uint64) []int32 {
	var out []int32
	for i, w := range words {
		for b := range 64 {
			if w&(1<<b) != 0 {
				out = append(out, int32(i*64+b))
			}
		}
	}
	return out
}

// comm is the thread's name.
func comm(ev *bpf.MonitorEvent) string {
	b := make([]byte, len(ev.Comm))
	for i, c := range ev.Comm {
		b[i] = byte(c)
	}
	name, _, _ := bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(name), "\uFFFD")
}

// fileID translates the kernel's device number (12 bits major, 20 minor).
func fileID(ev *bpf.MonitorEvent) *confinev1.FileId {
	return &confinev1.FileId{Inode: ev.Inode, Device: unix.Mkdev(ev.Device>>20, ev.Device&0xfffff)}
}
