package monitor

import confinev1 "github.com/confinehq/confine/proto/confine/v1"

// What backends and hosts exchange; monitor.proto says what each field means.
type (
	// Description is what a backend says about itself.
	Description = confinev1.DescribeResponse
	// Capabilities are the kinds of events that it can deliver.
	Capabilities = confinev1.Capabilities
	// Scope selects the processes to watch.
	Scope = confinev1.Scope
	// Exec is a program that was executed.
	Exec = confinev1.Exec
	// Mapping is a file that was mapped executable.
	Mapping = confinev1.Mapping
	// FileID identifies a file on the host.
	FileID = confinev1.FileId
	// Exit is the end of a process.
	Exit = confinev1.Exit
	// DeniedCall is a system call that seccomp refused.
	DeniedCall = confinev1.DeniedCall
	// Snapshot is what was counted and recorded.
	Snapshot = confinev1.SnapshotResponse
	// RecordedCalls are the system calls that a program made.
	RecordedCalls = confinev1.RecordedCalls
	// Repeated counts events that were left out.
	Repeated = confinev1.Repeated
	// RepeatedExec counts the executions of one program that were left out.
	RepeatedExec = confinev1.RepeatedExec
)
