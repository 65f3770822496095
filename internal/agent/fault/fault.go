// Package fault gives an error the gRPC status code and the stage of a run
// that the server and its users see.
package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is an error with a code. Its text says what to do next.
type Error struct {
	Code codes.Code
	// Stage of the run ("image", "run", "settle", "prove"), "" when unknown.
	Stage string
	// Output holds the container's last lines, when it was the container that
	// failed.
	Output []string
	err    error
}

// Error returns the text of the wrapped error.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.err }

// New makes an error with a code; format is as in fmt.Errorf.
func New(code codes.Code, format string, args ...any) error {
	return &Error{Code: code, err: fmt.Errorf(format, args...)}
}

// Stage names the stage in which err happened, unless a stage is known
// already. It returns nil for nil.
func Stage(stage string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		if e.Stage != "" {
			return err
		}
		return &Error{Code: e.Code, Stage: stage, Output: e.Output, err: err}
	}
	return &Error{Code: CodeOf(err), Stage: stage, err: err}
}

// StageOf returns the stage in which err happened, "" when unknown.
func StageOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Stage
	}
	return ""
}

// CodeOf returns the code of err, also for errors of containerd and of
// contexts; codes.Internal when nothing is known.
func CodeOf(err error) codes.Code {
	var e *Error
	switch {
	case err == nil:
		return codes.OK
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errdefs.IsUnavailable(err):
		return codes.Unavailable
	case errdefs.IsNotFound(err):
		return codes.NotFound
	case errdefs.IsInvalidArgument(err):
		return codes.InvalidArgument
	case errdefs.IsFailedPrecondition(err):
		return codes.FailedPrecondition
	}
	// Some calls of containerd's client return the status as it came.
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return s.Code()
	}
	return codes.Internal
}
