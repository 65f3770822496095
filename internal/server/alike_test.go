package server

import (
	"slices"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Who leaves out a part of an image's name, or its tag, is told of it.
func TestAlike(t *testing.T) {
	var all []*confinev1.ProfileSummary
	for _, image := range []string{"docker.io/team/app:2", "docker.io/team/app:2", "docker.io/library/other:latest", "docker.io/x/app:latest", "docker.io/y/app:1", "docker.io/z/app:1"} {
		all = append(all, &confinev1.ProfileSummary{Image: image})
	}
	for name, want := range map[string][]string{
		"app":       {"docker.io/team/app:2", "docker.io/x/app:latest", "docker.io/y/app:1"},
		"team/app":  {"docker.io/team/app:2", "docker.io/x/app:latest", "docker.io/y/app:1"},
		"other:old": {"docker.io/library/other:latest"},
		"ap":        nil,
		"":          nil,
	} {
		if got := alike(all, name); !slices.Equal(got, want) {
			t.Errorf("alike %q: %q, want %q", name, got, want)
		}
	}
}
