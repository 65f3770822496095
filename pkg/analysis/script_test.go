package analysis

import (
	"slices"
	"strings"
	"testing"
)

func TestShebang(t *testing.T) {
	for _, c := range []struct{ text, interp, arg string }{
		{"#!/bin/sh\n", "/bin/sh", ""},
		{"#!/bin/sh", "/bin/sh", ""},
		{"#! /bin/sh -e\necho", "/bin/sh", "-e"},
		{"#!\t/usr/bin/env  python3 -u \n", "/usr/bin/env", "python3 -u"},
		{"#!/bin/sh\r\n", "/bin/sh", ""},
		{"#!/bin/sh\t-e\n", "/bin/sh", "-e"},
		{"#!\n/bin/sh", "", ""},
		{"#", "", ""},
		{"", "", ""},
		{" #!/bin/sh\n", "", ""},
		{"echo #!/bin/sh\n", "", ""},
		{"#!/" + strings.Repeat("a", 400) + "\n", "/" + strings.Repeat("a", 253), ""},
	} {
		if interp, arg := shebang([]byte(c.text)); interp != c.interp || arg != c.arg {
			t.Errorf("%.40q: %q %q, want %q %q", c.text, interp, arg, c.interp, c.arg)
		}
	}
}

func TestEnvCommand(t *testing.T) {
	for arg, want := range map[string]string{
		"python3": "python3", "-S node --flag": "node", "-i PATH=/bin A=b bash -e": "bash", "": "", "-": "", "A=b": "",
	} {
		if got := envCommand(arg); got != want {
			t.Errorf("%q: %q, want %q", arg, got, want)
		}
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // sorted, separated by blanks
		not  string
	}{
		{"#!/bin/sh\nset -e\nexec redis-server \"$@\"\n", "exec redis-server set", ""},
		{"if [ -f /x ]; then\n  gosu redis redis-server --port 1\nfi\n", "[ gosu redis redis-server", "--port"},
		{"a | b && c || (d; e) &\nf=$(g `h`)\n", "a b c d e g h", "f"},
		{"case $1 in x) one;; *) two;; esac\nwhile three; do four; done\n", "four one three two", "x"},
		{"run() { inner; }\nrun\n", "inner", "run"},
		{"cat <<EOF\nnot a command\n$(yes)\nEOF\n", "cat yes", "not"},
		{"FOO=bar baz\n", "baz", "bar FOO=bar"},
		{"env -i A=b tool arg\n", "env tool", "-i"},
		{"exec \"$cmd\" fixed\n", "exec fixed", ""},
		{"time nice -n 5 slow\n", "slow", "-n"},
		{"# comment only\n", "", "comment"},
		{"unfinished \"quote\n", "", ""},
	} {
		got, _ := commands([]byte(c.text))
		if !slices.IsSorted(got) {
			t.Errorf("%q: %v isn't sorted", c.text, got)
		}
		for _, w := range strings.Fields(c.want) {
			if !slices.Contains(got, w) {
				t.Errorf("%q: %v lacks %s", c.text, got, w)
			}
		}
		for _, w := range strings.Fields(c.not) {
			if slices.Contains(got, w) {
				t.Errorf("%q: %v has %s", c.text, got, w)
			}
		}
	}
}

// TestCommandsBroken wants an error, and what stands before it, of scripts that
// are none; those that nest without end must not end the process.
func TestCommandsBroken(t *testing.T) {
	for _, text := range []string{"first\nsecond\nunfinished \"quote\n", "first\nsecond\nif x; then\n"} {
		got, err := commands([]byte(text))
		if err == nil || !slices.Contains(got, "first") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if got, _ := commands([]byte("first\n()0")); !slices.Contains(got, "first") { // a function without a name
		t.Errorf("%v", got)
	}
	for _, s := range []string{"(", "((", "$(", "{ ", "\"$(", "$((", "<(", "$[", "a[", "((a=", "if "} {
		_, err := commands([]byte(strings.Repeat(s, maxScript/len(s))))
		if err == nil {
			t.Errorf("%q many times: no error", s)
		}
	}
}

func FuzzScript(f *testing.F) {
	for _, s := range []string{
		"", "#!/bin/sh\nexec \"$@\"\n", "#! /usr/bin/env -S a=b node\n", "f() { g; }; f | h `i` $(j)\n", "case a in b) c;; esac",
		"cat <<E\n$(x)\nE\n", "((1+2)); [[ -f a ]] && b\n", "#!\x00", "a\\\nb", "${x:-$(y)}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		interp, arg := shebang(text)
		if len(interp)+len(arg) > maxLine || strings.ContainsAny(interp, " \t\n") || strings.Contains(arg, "\n") {
			t.Errorf("%q: interpreter %q, argument %q", text, interp, arg)
		}
		envCommand(arg)
		names, _ := commands(text)
		for _, n := range names {
			if n == "" {
				t.Errorf("%q: an empty name in %q", text, names)
			}
		}
		if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%q: %q aren't sorted and single", text, names)
		}
	})
}
