package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/confinehq/confine/pkg/monitor/proc"
)

func TestParseTable(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       proc.Execution // without a name: not an event
	}{
		{"plain", `true             32673  32666    0 "/bin/true" `, proc.Execution{PID: 32673, PPID: 32666, Name: "/bin/true", Comm: "true"}},
		{"more arguments", `true             9559   9554     0 "/bin/true" " ...`, proc.Execution{PID: 9559, PPID: 9554, Name: "/bin/true", Comm: "true"}},
		{"unknown parent, bcc", `true             9559    ?         0 "/bin/true" "..."`, proc.Execution{PID: 9559, Name: "/bin/true", Comm: "true"}},
		{"more arguments, bcc", `true             9559    9554      0 "/bin/true" "..."`, proc.Execution{PID: 9559, PPID: 9554, Name: "/bin/true", Comm: "true"}},
		{"blanks in names", `my prog          7      1        0 "/opt/my prog" `, proc.Execution{PID: 7, PPID: 1, Name: "/opt/my prog", Comm: "my prog"}},
		{"newline in the thread's name", "a\nb              7      1        0 \"/a\\nb\" ", proc.Execution{PID: 7, PPID: 1, Name: `/a\nb`, Comm: "a\nb"}},
		{"wide number", `true             4194303 4194302   0 "/bin/true" `, proc.Execution{PID: 4194303, PPID: 4194302, Name: "/bin/true", Comm: "true"}},
		{"cut", `x                7      1        0 "/` + strings.Repeat("x", 126) + `" `, proc.Execution{PID: 7, PPID: 1, Name: "/" + strings.Repeat("x", 126), Comm: "x", Cut: true}},
		{"failed", `bash             32692  32683   -2 "/bin/nonexist" `, proc.Execution{}},
		{"head", `PCOMM            PID    PPID   RET ARGS`, proc.Execution{}},
		{"without quotes", `true             32673  32666    0 /bin/true `, proc.Execution{}},
		{"negative process", `true             -1     32666    0 "/bin/true" `, proc.Execution{}},
		{"short", `true`, proc.Execution{}},
		{"empty", ``, proc.Execution{}},
	} {
		got, err := parseTable(c.line)
		if (err != nil) != (c.want.Name == "") || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

func TestParseJoin(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       []proc.Execution
	}{
		{"plain", "2827       32766 /bin/true a b", []proc.Execution{{PID: 32766, Name: "/bin/true", Args: "/bin/true a b"}}},
		{"small number", "2830       300   seq 1 40", []proc.Execution{{PID: 300, Name: "seq", Args: "seq 1 40"}}},
		{"no argument", "2830       300   ", []proc.Execution{{PID: 300, Cut: true}}},
		{"mixed", "284        32761 285        3333  /bin/a", []proc.Execution{{PID: 32761, Cut: true}, {PID: 3333, Cut: true}}},
		{"numbers as arguments", "284        32761 1 2", []proc.Execution{{PID: 32761, Name: "1", Args: "1 2"}}},
		{"rest of an argument", "second line", nil},
		{"head", "TIME(ms)   PID   ARGS", nil},
		{"empty", "", nil},
	} {
		got, err := parseJoin(c.line)
		if (err != nil) != (c.want == nil) || len(got) != len(c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
			continue
		}
		for i := range got {
			c.want[i].Naming = proc.FirstArgument
			if got[i] != c.want[i] {
				t.Errorf("%s: %+v, want %+v", c.name, got[i], c.want[i])
			}
		}
	}
}

func TestLosses(t *testing.T) {
	for line, want := range map[string]uint64{
		"Lost 7 events on CPU #1!": 7, "Lost 12 events": 12, "Possibly lost 3 samples": 3,
		"WARNING: Lost 5 events": 5, "lost many events": 1, "it was lost": 0, "": 0, "Lost 99999999999999999999 events": 1,
	} {
		if got := losses(line); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

// No line makes a process out of nothing, and none can be taken for more than
// one by libbpf-tools' and bcc's quoting.
func FuzzLine(f *testing.F) {
	f.Add(`true             32673  32666    0 "/bin/true" `)
	f.Add("284        32761 285        3333  /bin/a")
	f.Fuzz(func(t *testing.T, line string) {
		x, err := parseTable(line)
		if err == nil && (x.PID <= 0 || x.PPID < 0 || len(x.Comm) > commSize) {
			t.Errorf("%q: %+v", line, x)
		}
		if err != nil && !errors.Is(err, errLine) {
			t.Errorf("%q: %v", line, err)
		}
		all, _ := parseJoin(line)
		for _, x := range all {
			if x.PID <= 0 {
				t.Errorf("%q: %+v", line, x)
			}
		}
		losses(line)
	})
}
