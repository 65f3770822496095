package cli

import (
	"errors"

	"github.com/confinehq/confine/pkg/analysis"
)

// analysisProfile is a profile of the programs alone. What the container
// runtime itself needs to start them is not in it.
func analysisProfile(*analysis.Result) ([]byte, error) {
	return nil, errors.New("write profile: not built yet")
}
