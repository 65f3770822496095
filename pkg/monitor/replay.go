package monitor

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Replayer is a Monitor that can replay recorded traces too: it has the
// capability replay, its Watch heeds Scope.capture, and its Snapshot waits for
// the end of the trace.
type Replayer interface {
	Monitor
	// InspectCapture tells what runs in a trace.
	InspectCapture(ctx context.Context, path string) (*confinev1.InspectCaptureResponse, error)
}

// InspectCapture implements the service.
func (s *server) InspectCapture(ctx context.Context, req *confinev1.InspectCaptureRequest) (*confinev1.InspectCaptureResponse, error) {
	r, ok := s.impl.(Replayer)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "this monitor can't replay recorded traces")
	}
	found, err := r.InspectCapture(ctx, req.GetPath())
	if err != nil {
		return nil, toStatus(err, codes.FailedPrecondition)
	}
	return found, nil
}

// InspectCapture tells what runs in a recorded trace, a file that the plugin
// can read.
func (c *Client) InspectCapture(ctx context.Context, path string) (*confinev1.InspectCaptureResponse, error) {
	found, err := c.rpc.InspectCapture(ctx, &confinev1.InspectCaptureRequest{Path: path})
	if err != nil {
		return nil, c.wrap("inspect capture", err)
	}
	return found, nil
}
