package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// format is what sysdig prints of each event, as JSON; "*" keeps events that
// lack some of it.
const format = "*%evt.rawtime %evt.dir %evt.type %syscall.type %thread.tid %proc.pid %proc.ppid %proc.name " +
	"%proc.exepath %proc.exe %container.id %container.name %container.image " +
	"%evt.arg.res %evt.arg.filename %evt.arg.pathname %evt.arg.cwd %evt.arg.env %evt.arg.prot %evt.arg.fd"

// text is a JSON string, number or null.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(b []byte) error {
	switch {
	case len(b) == 0 || string(b) == "null":
		*t = ""
	case b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*t = text(s)
	case b[0] == '{' || b[0] == '[':
		return errors.New("a value is no text")
	default:
		*t = text(b)
	}
	return nil
}

// number returns the number in a text, 0 for none.
func (t text) number() uint64 {
	n, err := strconv.ParseUint(string(t), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// pid returns a process number, 0 for none.
func (t text) pid() int32 {
	n, err := strconv.ParseInt(string(t), 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// value is the text, "" for what sysdig writes when it knows nothing.
func (t text) value() string {
	if t == "<NA>" || t == "(null)" {
		return ""
	}
	return strings.ToValidUTF8(string(t), "\uFFFD")
}

// event is one event of sysdig.
type event struct {
	Time      text `json:"evt.rawtime"`
	Dir       text `json:"evt.dir"` // "<" or ">"
	Type      text `json:"evt.type"`
	Call      text `json:"syscall.type"`
	TID       text `json:"thread.tid"`
	PID       text `json:"proc.pid"`
	PPID      text `json:"proc.ppid"`
	Comm      text `json:"proc.name"`
	ExePath   text `json:"proc.exepath"`
	Exe       text `json:"proc.exe"`
	Container text `json:"container.id"`
	Name      text `json:"container.name"`
	Image     text `json:"container.image"`
	Result    text `json:"evt.arg.res"`
	Filename  text `json:"evt.arg.filename"` // of execve, at its start
	Pathname  text `json:"evt.arg.pathname"` // of execveat
	Cwd       text `json:"evt.arg.cwd"`
	Env       text `json:"evt.arg.env"`
	Prot      text `json:"evt.arg.prot"`
	FD        text `json:"evt.arg.fd"`
}

// parse reads one line.
func parse(line string) (event, error) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return event{}, fmt.Errorf("read event: %w", err)
	}
	if e.Type == "" {
		return event{}, errors.New("read event: it has no type")
	}
	return e, nil
}

// executed reports whether the event is the end of an execve or execveat that
// succeeded.
func (e event) executed() bool {
	return e.Dir == "<" && (e.Type == "execve" || e.Type == "execveat") && (e.Result == "0" || e.Result == "")
}

// dropped reports whether the event says that the driver dropped others.
func (e event) dropped() bool { return e.Type == "drop" && e.Dir == ">" }

// mapped returns the file that the event maps executable, "" for none.
func (e event) mapped() string {
	if e.Dir != ">" || e.Type != "mmap" && e.Type != "mmap2" || !strings.Contains(string(e.Prot), "PROT_EXEC") {
		return ""
	}
	// <f>PATH: an open file.
	name, ok := strings.CutPrefix(e.FD.value(), "<f>")
	if !ok || !strings.HasPrefix(name, "/") {
		return ""
	}
	return name
}

// searchPath is PATH in the environment that an execution had. sysdig writes
// a dot between variables, which are cut off at 4 KiB.
func (e event) searchPath() string {
	env := "." + e.Env.value()
	_, rest, ok := strings.Cut(env, ".PATH=")
	if !ok {
		return ""
	}
	for i := 0; i < len(rest); i++ {
		if rest[i] == '.' && startsVariable(rest[i+1:]) {
			return rest[:i]
		}
	}
	return strings.TrimSuffix(rest, ".")
}

// startsVariable reports whether a text begins like "NAME=".
func startsVariable(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '=':
			return i > 0
		case c == '_', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', i > 0 && c >= '0' && c <= '9':
		default:
			return false
		}
	}
	return s == "" // the last dot
}
