package agent

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
)

func (r *run) observeAttached(context.Context) error {
	return fault.New(codes.Unimplemented, "attaching to a running container is not possible yet")
}
