package proc

import (
	"bytes"
	"errors"
	"io"
)

// EachLine hands out the lines of a tool's output, without the newline, until
// its end. A line of more than limit bytes comes in pieces, each of limit bytes
// and not whole, but for the last. The error is the reader's, nil at the end.
func EachLine(r io.Reader, limit int, handle func(line string, whole bool)) error {
	buf := make([]byte, limit)
	n, whole := 0, true
	for {
		m, err := r.Read(buf[n:])
		n += m
		rest := buf[:n]
		for {
			line, more, ok := bytes.Cut(rest, []byte("\n"))
			if !ok {
				break
			}
			handle(string(line), whole)
			rest, whole = more, true
		}
		if len(rest) == len(buf) {
			handle(string(rest), false)
			rest, whole = nil, false
		}
		n = copy(buf, rest)
		switch {
		case err == nil:
			continue
		case n > 0:
			handle(string(buf[:n]), whole)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}
