package main

import (
	"errors"
	"strconv"
	"strings"

	"github.com/confinehq/confine/pkg/monitor/proc"
)

const (
	// commSize is TASK_COMM_LEN: the column of a thread's name.
	commSize = 16
	// nameSize is ARGSIZE of the tools: a file's name is cut to one less.
	nameSize = 128
	// joinArgs and joinSize bound what bpftrace's join() prints.
	joinArgs = 16
	joinSize = 1024
)

// errLine is a line that is no event.
var errLine = errors.New("not an event")

// header reports whether a line is a tool's table head, after which events
// come.
func (k kind) header(line string) bool {
	f := strings.Fields(line)
	want := []string{"PCOMM", "PID", "PPID", "RET", "ARGS"}
	if k == bpftrace {
		want = []string{"TIME(ms)", "PID", "ARGS"}
		if len(f) > 0 && f[0] == "TIME" {
			f[0] = "TIME(ms)" // as newer ones write it
		}
	}
	return strings.Join(f, " ") == strings.Join(want, " ")
}

// parse reads one line of a tool.
func (k kind) parse(line string) (proc.Execution, error) {
	if k == bpftrace {
		return parseJoin(line)
	}
	return parseTable(line)
}

// parseTable reads a line of libbpf-tools' or bcc's execsnoop with quotes:
//
//	PCOMM(16) PID PPID RET "FILE" [ " ..." | "..."]
//
// Calls that failed are reported by neither unless they are asked to.
func parseTable(line string) (proc.Execution, error) {
	if len(line) < commSize+1 || line[commSize] != ' ' {
		return proc.Execution{}, errLine
	}
	x := proc.Execution{Comm: strings.TrimRight(line[:commSize], " "), Naming: proc.Asked}
	rest := line[commSize+1:]
	var numbers [3]int64
	for i := range numbers {
		var field string
		rest = strings.TrimLeft(rest, " ")
		field, rest, _ = strings.Cut(rest, " ")
		n, err := strconv.ParseInt(field, 10, 32)
		if err != nil {
			return proc.Execution{}, errLine
		}
		numbers[i] = n
	}
	if numbers[0] <= 0 || numbers[1] < 0 || numbers[2] != 0 {
		return proc.Execution{}, errLine
	}
	x.PID, x.PPID = int32(numbers[0]), int32(numbers[1])
	name, ok := strings.CutPrefix(rest, `"`)
	if !ok {
		return proc.Execution{}, errLine
	}
	for _, more := range []string{` "...`, `" " ...`, `" "..."`} {
		name = strings.TrimSuffix(strings.TrimRight(name, " "), more)
	}
	name = strings.TrimSuffix(strings.TrimRight(name, " "), `"`)
	x.Name = name
	x.Cut = len(name) >= nameSize-1
	return x, nil
}

// parseJoin reads a line of execsnoop.bt: TIME PID ARGUMENTS, each argument
// as it is. It comes before the call is carried out.
func parseJoin(line string) (proc.Execution, error) {
	time, rest, _ := strings.Cut(line, " ")
	if strings.Contains(time, ":") {
		return proc.Execution{}, errLine
	}
	if _, err := strconv.ParseUint(time, 10, 63); err != nil {
		return proc.Execution{}, errLine
	}
	rest = strings.TrimLeft(rest, " ")
	number, args, _ := strings.Cut(rest, " ")
	pid, err := strconv.ParseInt(number, 10, 32)
	if err != nil || pid <= 0 {
		return proc.Execution{}, errLine
	}
	args = strings.TrimPrefix(args, strings.Repeat(" ", max(0, 5-len(number))))
	x := proc.Execution{PID: int32(pid), Naming: proc.FirstArgument, Args: args}
	x.Name, _, _ = strings.Cut(args, " ")
	x.Cut = x.Name == "" || len(x.Name) >= joinSize/joinArgs
	return x, nil
}

// losses returns how many events a line says were lost, 0 when it says nothing
// of the kind: "Lost 7 events on CPU #1!", "Possibly lost 7 samples".
func losses(line string) uint64 {
	words := strings.Fields(strings.ToLower(line))
	for i := 0; i+2 < len(words); i++ {
		if words[i] != "lost" || !strings.HasPrefix(words[i+2], "event") && !strings.HasPrefix(words[i+2], "sample") {
			continue
		}
		n, err := strconv.ParseUint(words[i+1], 10, 64)
		if err != nil {
			return 1
		}
		return n
	}
	return 0
}
