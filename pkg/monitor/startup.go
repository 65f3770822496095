package monitor

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// quotedSize bounds what is shown of what a plugin printed, in bytes.
const quotedSize = 80

// explainStart says in a sentence why a plugin didn't come to its service, and
// what to do. go-plugin has texts alone to tell its errors apart.
func explainStart(err error, limit time.Duration) error {
	text := err.Error()
	var theirs int
	if _, rest, ok := strings.Cut(text, "Plugin version: "); ok && strings.HasPrefix(text, "incompatible API version") {
		if _, scan := fmt.Sscanf(rest, "%d", &theirs); scan == nil {
			return explainVersion(theirs)
		}
	}
	if printed, ok := strings.CutPrefix(text, "Unrecognized remote plugin message: "); ok {
		printed, _, _ = strings.Cut(printed, "\n")
		if printed == "" {
			return errors.New("it ended without a word: it may be made for another machine; its log says more (agent with --log-level debug)")
		}
		return fmt.Errorf("it isn't a monitor: it printed %s instead of the handshake; install one that is made with package monitor", quoted(printed))
	}
	switch {
	case strings.HasPrefix(text, "incompatible core API version"), strings.HasPrefix(text, "error parsing core protocol version"),
		strings.HasPrefix(text, "error parsing protocol version"), strings.HasPrefix(text, "unknown address type"),
		strings.HasPrefix(text, "unsupported plugin protocol"), strings.HasPrefix(text, "error parsing server cert"):
		return fmt.Errorf("it isn't a monitor: its handshake is not understood (%s); install one that is made with package monitor", quoted(text))
	case strings.HasPrefix(text, "timeout while waiting for plugin to start"):
		return fmt.Errorf("it hung: no handshake within %v, and was killed; its log says more (agent with --log-level debug)", limit)
	case strings.HasPrefix(text, "plugin exited before we could connect"):
		return errors.New("it ended before its handshake; its log says more (agent with --log-level debug)")
	}
	return err
}

// explainVersion says which side is to be updated.
func explainVersion(theirs int) error {
	ours := fmt.Sprintf("%d", newestVersion)
	if oldestVersion < newestVersion {
		ours = fmt.Sprintf("%d to %d", oldestVersion, newestVersion)
	}
	side := "the monitor is too old: update it"
	if theirs > newestVersion {
		side = "the agent is too old: update confine-agent (or install an older monitor)"
	}
	return fmt.Errorf("it speaks version %d of the monitor contract, the agent %s; %s", theirs, ours, side)
}

// quoted shows foreign text safely and shortened.
func quoted(text string) string {
	if len(text) > quotedSize {
		return fmt.Sprintf("%q...", text[:quotedSize])
	}
	return fmt.Sprintf("%q", text)
}
