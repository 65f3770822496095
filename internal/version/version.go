// Package version tells which build of Confine is running.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version is the release that was built. The build sets it through
// -ldflags "-X github.com/confinehq/confine/internal/version.Version=...".
var Version = "0.1.0-dev"

// Commit is the revision that was built, "" when unknown.
var Commit = ""

// String returns version, commit, Go version and platform on one line.
func String() string {
	commit := Commit
	if commit == "" {
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" && len(s.Value) >= 12 {
					commit = s.Value[:12]
				}
			}
		}
	}
	if commit == "" {
		commit = "unknown"
	}
	return Version + " (" + commit + ", " + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}
