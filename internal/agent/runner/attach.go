package runner

// Existing is a container that somebody else runs.
type Existing struct {
	ID  string
	PID int
}
