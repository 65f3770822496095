// Package scap makes traces of sysdig for tests out of a recorded one: it puts
// processes into a container, as sysdig would have written it on a machine with
// Docker.
//
// A trace is a row of blocks: type, length, content, length again, each number
// of 32 bits. The content of an event is the processor (16 bits), the time and
// the thread (64 bits each), the length from there on (32), the type (16), the
// lengths of its parameters (16 each), the parameters.
package scap

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	blockEvent = 0x204
	// eventContainer tells of a container, as JSON.
	eventContainer = 272
	// headSize is that of an event's content before the lengths, with the
	// processor; lengthFrom is where its length begins to count.
	headSize   = 24
	lengthFrom = 2
	// idDigits is how much of a container's id sysdig tells.
	idDigits = 12
)

// Container is one that Docker runs.
type Container struct {
	// ID has 64 hex digits.
	ID, Name, Image string
}

// Contain returns a trace in which c is known, and every process whose control
// groups an event tells is in it.
func Contain(trace []byte, c Container) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(trace))
	if err != nil {
		return nil, err
	}
	if trace, err = io.ReadAll(z); err != nil {
		return nil, err
	}
	var out []byte
	known := false
	for len(trace) > 0 {
		kind, content, rest, err := cut(trace)
		if err != nil {
			return nil, err
		}
		if kind == blockEvent {
			if !known {
				known = true
				out = appendBlock(out, kind, c.event(content))
			}
			if content, err = c.move(content); err != nil {
				return nil, err
			}
		}
		out, trace = appendBlock(out, kind, content), rest
	}
	return out, nil
}

// cut takes the first block off.
func cut(trace []byte) (kind uint32, content, rest []byte, err error) {
	if len(trace) < 12 {
		return 0, nil, nil, errors.New("the trace ends within a block")
	}
	kind = binary.LittleEndian.Uint32(trace)
	size := binary.LittleEndian.Uint32(trace[4:])
	if size < 12 || uint64(size) > uint64(len(trace)) {
		return 0, nil, nil, fmt.Errorf("a block of %d bytes", size)
	}
	return kind, trace[8 : size-4], trace[size:], nil
}

// appendBlock adds a block, whose length is a multiple of 4.
func appendBlock(out []byte, kind uint32, content []byte) []byte {
	fill := -len(content) & 3
	size := uint32(12 + len(content) + fill)
	out = binary.LittleEndian.AppendUint32(out, kind)
	out = binary.LittleEndian.AppendUint32(out, size)
	out = append(append(out, content...), make([]byte, fill)...)
	return binary.LittleEndian.AppendUint32(out, size)
}

// event is the one that tells of the container, at the time of another.
func (c Container) event(at []byte) []byte {
	about := map[string]any{"container": map[string]any{"type": 0, "id": c.ID[:idDigits], "name": c.Name, "image": c.Image, "lookup_state": 1}}
	text, err := json.Marshal(about)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	head := bytes.Clone(at[:headSize])
	clear(head[10:18]) // of no thread
	binary.LittleEndian.PutUint16(head[22:], eventContainer)
	return join(head, [][]byte{append(text, 0)})
}

// move puts the process of an event into the container, if it tells control
// groups.
func (c Container) move(content []byte) ([]byte, error) {
	if !bytes.Contains(content, []byte("cpuset=")) {
		return content, nil
	}
	params, err := split(content)
	if err != nil {
		return nil, err
	}
	for i, p := range params {
		if bytes.HasPrefix(p, []byte("cpuset=")) {
			params[i] = fmt.Appendf(nil, "cpuset=/docker/%[1]s\x00cpu=/docker/%[1]s\x00memory=/docker/%[1]s\x00", c.ID)
		}
	}
	return join(content[:headSize], params), nil
}

// split returns the parameters of an event. Their number follows from the
// event's length.
func split(content []byte) ([][]byte, error) {
	end := lengthFrom + int(binary.LittleEndian.Uint32(content[18:]))
	if end > len(content) {
		return nil, errors.New("an event is longer than its block")
	}
	var sizes []int
	at, sum := headSize, headSize
	for at < end && sum != end {
		n := int(binary.LittleEndian.Uint16(content[at:]))
		sizes, at, sum = append(sizes, n), at+2, sum+2+n
	}
	if sum != end {
		return nil, errors.New("an event's parameters don't fill it")
	}
	var params [][]byte
	for _, n := range sizes {
		params, at = append(params, content[at:at+n]), at+n
	}
	return params, nil
}

// join makes an event of a head and parameters.
func join(head []byte, params [][]byte) []byte {
	out := bytes.Clone(head)
	for _, p := range params {
		out = binary.LittleEndian.AppendUint16(out, uint16(len(p)))
	}
	for _, p := range params {
		out = append(out, p...)
	}
	binary.LittleEndian.PutUint32(out[18:], uint32(len(out)-lengthFrom))
	return out
}
