package server

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// errStopping ends runs and streams when the server stops.
var errStopping = status.Error(codes.Aborted, "the server is stopping; run the command again when it is back")

// storeError gives an error of the store its code.
func storeError(err error) error {
	code := codes.Internal
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, store.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, store.ErrFull):
		code = codes.ResourceExhausted
	case errors.Is(err, store.ErrDigest):
		code = codes.DataLoss
	case errors.Is(err, store.ErrOffset):
		code = codes.OutOfRange
	case errors.Is(err, store.ErrTooLarge):
		code = codes.InvalidArgument
	case errors.Is(err, store.ErrBusy):
		code = codes.Aborted
	}
	return status.Error(code, err.Error())
}

// runError is what an operator learns of a run that its node gave up.
func runError(node string, e *confinev1.RunError) error {
	where := "node " + node
	if stage := clean(e.GetStage(), 32); stage != "" {
		where += ", stage " + stage
	}
	return status.Errorf(nodeCode(e.GetCode()), "%s: %s", where, clean(e.GetMessage(), maxText))
}

// nodeCode keeps the codes that say something about the run, and replaces
// those that would say something about the operator's own connection to this
// server.
func nodeCode(code uint32) codes.Code {
	switch c := codes.Code(code); c {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.Aborted, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Internal:
		return c
	case codes.Unavailable, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return codes.FailedPrecondition
	}
	return codes.Aborted
}
