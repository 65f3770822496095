package agent

import (
	"strings"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// What a monitor can't see is said of a test with it.
func TestStressResult(t *testing.T) {
	for name, c := range map[string]struct {
		sees      *confinev1.Capabilities
		uncounted bool
		limit     string
	}{
		"everything": {sees: &confinev1.Capabilities{Exec: true, ExecMapping: true}},
		"no mapping": {sees: &confinev1.Capabilities{Exec: true}, limit: "sees no mappings"},
		"misses": {
			sees:      &confinev1.Capabilities{Exec: true, ExecMapping: true, MissesShortLived: true, MissesShortMappings: true},
			uncounted: true, limit: "mappings that end soon may go unseen",
		},
	} {
		done := (&stressTest{sees: c.sees}).result()
		limits := strings.Join(done.GetLimits(), "; ")
		if done.GetMissesUncounted() != c.uncounted || !strings.Contains(limits, c.limit) || (limits == "") != (c.limit == "") {
			t.Errorf("%s: uncounted %v, limits %q, want %v and %q", name, done.GetMissesUncounted(), limits, c.uncounted, c.limit)
		}
	}
}
