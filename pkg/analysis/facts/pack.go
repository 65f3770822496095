package facts

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxPlain bounds what facts may grow to when they are read, in bytes: more
	// than the facts of the largest object that is analysed need.
	maxPlain = 512 << 20
	// maxStrings bounds the strings of one object's facts, in bytes.
	maxStrings = 256 << 20
)

// pack compresses an encoding behind the version.
func pack(plain []byte) []byte {
	out := binary.AppendUvarint(nil, Version)
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err) // the options are constant
	}
	defer e.Close()
	return e.EncodeAll(plain, out)
}

// unpack reads what pack wrote; ErrCorrupt for anything else.
func unpack(data []byte) ([]byte, error) {
	v, n := binary.Uvarint(data)
	if n <= 0 || v != Version {
		return nil, fmt.Errorf("%w: version %d", ErrCorrupt, v)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPlain))
	if err != nil {
		panic(err) // the options are constant
	}
	defer d.Close()
	plain, err := d.DecodeAll(data[n:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return plain, nil
}
