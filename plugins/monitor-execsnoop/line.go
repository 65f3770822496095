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
		if i == 1 && field == "?" {
			continue // as bcc writes a parent that it doesn't know
		}
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
//
// Head and arguments are printed one after the other, so that those of
// processes on several processors can come mixed: two heads in one line, and
// then the arguments of both, nobody knows whose. Then the executions have no
// name.
func parseJoin(line string) ([]proc.Execution, error) {
	var pids []int32
	rest := line
	for {
		pid, more, ok := joinHead(rest)
		if !ok {
			break
		}
		pids, rest = append(pids, pid), more
	}
	switch len(pids) {
	case 0:
		return nil, errLine
	case 1:
		x := proc.Execution{PID: pids[0], Naming: proc.FirstArgument, Args: rest}
		x.Name, _, _ = strings.Cut(rest, " ")
		x.Cut = x.Name == "" || len(x.Name) >= joinSize/joinArgs
		return []proc.Execution{x}, nil
	}
	var out []proc.Execution
	for _, pid := range pids {
		out = append(out, proc.Execution{PID: pid, Naming: proc.FirstArgument, Cut: true})
	}
	return out, nil
}

// joinHead takes the head of a line off, which is printed with "%-10u %-5d ".
func joinHead(line string) (pid int32, rest string, ok bool) {
	_, rest, ok = joinNumber(line, 10)
	if !ok {
		return 0, line, false
	}
	n, rest, ok := joinNumber(rest, 5)
	if !ok || n == 0 || n > 1<<30 {
		return 0, line, false
	}
	return int32(n), rest, true
}

// joinNumber takes off a number that is filled up with blanks to a width, and
// one blank more.
func joinNumber(line string, width int) (n uint64, rest string, ok bool) {
	digits := 0
	for digits < len(line) && line[digits] >= '0' && line[digits] <= '9' {
		digits++
	}
	end := max(digits, width)
	if digits == 0 || len(line) < end+1 || strings.Trim(line[digits:end+1], " ") != "" {
		return 0, line, false
	}
	n, err := strconv.ParseUint(line[:digits], 10, 63)
	return n, line[end+1:], err == nil
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
