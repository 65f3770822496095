package analysis

import (
	"context"
	"errors"
)

func analyze(_ context.Context, _ Request) (*Result, error) {
	return nil, errors.New("analyze: not built yet")
}
