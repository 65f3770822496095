package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// captureChunk is how much of a trace one message carries, in bytes.
const captureChunk = 1 << 20

// sendCapture sends a trace to the server, which may have it already.
func sendCapture(ctx context.Context, client confinev1.OperatorServiceClient, file string) (*confinev1.CaptureRef, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open the trace: %w", err)
	}
	defer f.Close()
	ref, err := describeCapture(f, file)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := client.UploadCapture(ctx)
	if err != nil {
		return nil, err
	}
	part := io.NewSectionReader(f, 0, int64(ref.GetSize()))
	for first := true; ; first = false {
		// A fresh slice for each message: gRPC may keep it after Send.
		buf := make([]byte, captureChunk)
		n, err := io.ReadFull(part, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("read the trace: %w", err)
		}
		last := err != nil
		m := &confinev1.UploadCaptureRequest{Data: buf[:n]}
		if first {
			m.Capture = ref
		}
		// EOF: the server has answered already, CloseAndRecv tells what.
		if err := s.Send(m); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		} else if err != nil || last {
			break
		}
	}
	if _, err := s.CloseAndRecv(); err != nil {
		return nil, err
	}
	return ref, nil
}

// describeCapture reads a trace once.
func describeCapture(f *os.File, file string) (*confinev1.CaptureRef, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the trace %s is no regular file", file)
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	if n == 0 {
		return nil, fmt.Errorf("the trace %s is empty", file)
	}
	name := strings.ToValidUTF8(filepath.Base(file), "\uFFFD")
	return &confinev1.CaptureRef{Sha256: hex.EncodeToString(h.Sum(nil)), Size: uint64(n), Name: name}, nil
}
