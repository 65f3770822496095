package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/confinehq/confine/pkg/syscalls"
)

func TestVersions(t *testing.T) {
	for out, want := range map[string]string{
		"sysdig version 0.29.3": "0.29.3", "sysdig version 0.27.0": "0.27.0", "sysdig version 1.0": "1.0", "sysdig version 0.38.1\n": "0.38.1",
		"sysdig version 0.26.7": "", "sysdig version 0.19.1": "", "sysdig": "", "": "",
	} {
		got, err := acceptable(out)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v, want %q", out, got, err, want)
		}
	}
	if _, err := acceptable("sysdig version 0.26.7"); !strings.Contains(err.Error(), "0.26.7") || !strings.Contains(err.Error(), "execveat") || !strings.Contains(err.Error(), "0.27") {
		t.Errorf("the refusal says neither why nor what to do: %v", err)
	}
}

func TestEvents(t *testing.T) {
	e, err := parse(`{"evt.rawtime":1534527348514632619,"evt.dir":"<","evt.type":"execve","proc.pid":17,"evt.arg.res":"0","proc.exepath":null,"proc.exe":"curl","evt.arg.cwd":"/home"}`)
	if err != nil {
		t.Fatal(err)
	}
	if !e.executed() || e.PID.pid() != 17 || e.Time.number() != 1534527348514632619 || e.ExePath != "" || e.Exe.value() != "curl" {
		t.Errorf("%+v", e)
	}
	for line, want := range map[string]string{
		`{"evt.type":"mmap","evt.dir":">","evt.arg.prot":"PROT_READ|PROT_EXEC","evt.arg.fd":"<f>/lib/libz.so.1"}`: "/lib/libz.so.1",
		`{"evt.type":"mmap","evt.dir":">","evt.arg.prot":"PROT_READ","evt.arg.fd":"<f>/lib/libz.so.1"}`:           "",
		`{"evt.type":"mmap","evt.dir":">","evt.arg.prot":"PROT_EXEC","evt.arg.fd":"EPERM"}`:                       "",
		`{"evt.type":"mmap","evt.dir":"<","evt.arg.prot":"PROT_EXEC","evt.arg.fd":"<f>/x"}`:                       "",
	} {
		if e, err := parse(line); err != nil || e.mapped() != want {
			t.Errorf("%s: %q, %v, want %q", line, e.mapped(), err, want)
		}
	}
	for _, bad := range []string{"", "{}", "[]", `{"evt.type":["x"]}`, `{"evt.type":"x"`, "Unable to load the driver"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is taken for an event", bad)
		}
	}
}

func TestSearchPath(t *testing.T) {
	for env, want := range map[string]string{
		"A=1.PATH=/home/u/.local/bin:/bin.PWD=/x.": "/home/u/.local/bin:/bin",
		"PATH=/bin.":      "/bin",
		"A=1.XPATH=/bin.": "",
		"":                "",
	} {
		if got := (event{Env: text(env)}).searchPath(); got != want {
			t.Errorf("%q: %q, want %q", env, got, want)
		}
	}
}

// A call that sysdig's name doesn't tell is not recorded: it would be taken
// for one that the analysis missed.
func TestCalls(t *testing.T) {
	c := newCalls()
	for _, name := range []string{"read", "pread", "pipe", "dup", "umount", "switch", "no_such_call"} {
		c.add("/bin/x", name)
	}
	recorded := c.recorded()
	if len(recorded) != 1 {
		t.Fatalf("%v", recorded)
	}
	var want []int32
	for _, name := range []string{"read", "pread64", "umount2"} {
		nr, ok := syscalls.Number(c.arch, name)
		if !ok {
			t.Fatal(name)
		}
		want = append(want, int32(nr))
	}
	slices.Sort(want)
	if !slices.Equal(recorded[0].GetNrs(), want) {
		t.Errorf("recorded %v, want %v", recorded[0].GetNrs(), want)
	}
	if got := sorted(c.unclear); !slices.Equal(got, []string{"dup", "pipe"}) {
		t.Errorf("unclear %q", got)
	}
	if got := sorted(c.unknown); !slices.Equal(got, []string{"no_such_call"}) {
		t.Errorf("unknown %q", got)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(`{"evt.type":"execve","evt.dir":"<","evt.arg.res":"0","proc.pid":1,"evt.arg.env":"A=1.PATH=/b."}`)
	f.Add(`{"evt.type":"mmap","evt.arg.fd":"<f>/x","evt.arg.prot":"PROT_EXEC"}`)
	f.Fuzz(func(t *testing.T, line string) {
		e, err := parse(line)
		if err != nil {
			return
		}
		if name := e.mapped(); name != "" && !strings.HasPrefix(name, "/") {
			t.Errorf("%q maps %q", line, name)
		}
		if e.PID.pid() < 0 && !strings.Contains(string(e.PID), "-") {
			t.Errorf("%q: process %d", line, e.PID.pid())
		}
		if e.executed() && e.mapped() != "" {
			t.Errorf("%q both executes and maps", line)
		}
		e.searchPath()
	})
}
