package facts

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxPlain bounds what facts may grow to when they are read, in bytes: more
	// than the facts of the largest object that is analysed need.
	maxPlain = 512 << 20
	// ownBlock is the length in bytes from which a piece is worth statistics of
	// its own.
	ownBlock = 256
	// maxStrings bounds the strings of one object's facts, in bytes.
	maxStrings = 256 << 20
)

// pack puts the version, the head as it is, and the compressed body together.
// Each piece of the body is compressed by its own statistics.
func pack(head []byte, body ...[]byte) []byte {
	out := binary.AppendUvarint(nil, Version)
	out = binary.AppendUvarint(out, uint64(len(head)))
	buf := bytes.NewBuffer(append(out, head...))
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err) // the options are constant
	}
	size := int64(0)
	for _, b := range body {
		size += int64(len(b))
	}
	e.ResetContentSize(buf, size)
	for _, b := range body {
		_, err = e.Write(b)
		if err == nil && len(b) >= ownBlock {
			err = e.Flush()
		}
		if err != nil {
			panic(err) // memory doesn't refuse
		}
	}
	if err := e.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// parts takes apart what pack wrote; ErrCorrupt for anything else. The body is
// still compressed.
func parts(data []byte) (head, body []byte, err error) {
	v, n := binary.Uvarint(data)
	if n <= 0 || v != Version {
		return nil, nil, fmt.Errorf("%w: version %d", ErrCorrupt, v)
	}
	data = data[n:]
	size, n := binary.Uvarint(data)
	if n <= 0 || size > uint64(len(data)-n) {
		return nil, nil, ErrCorrupt
	}
	data = data[n:]
	return data[:size], data[size:], nil
}

// unpack returns the body of what pack wrote; ErrCorrupt for anything else.
func unpack(data []byte) ([]byte, error) {
	_, body, err := parts(data)
	if err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain))
	if err != nil {
		panic(err) // the options are constant
	}
	defer d.Close()
	plain, err := d.DecodeAll(body, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return plain, nil
}
