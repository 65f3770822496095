package proc

import (
	"strings"
	"testing"
	"testing/iotest"
)

func TestEachLine(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // "!" before what isn't whole
	}{
		{"", nil},
		{"a\n\nb", []string{"a", "", "b"}},
		{"12345678\n", []string{"!12345678", "!"}},
		{"1234567\nx\n", []string{"1234567", "x"}},
		{"12345678abc\nx\n", []string{"!12345678", "!abc", "x"}},
	} {
		for name, r := range map[string]func() []string{
			"at once":      func() []string { return lines(t, c.text, false) },
			"byte by byte": func() []string { return lines(t, c.text, true) },
		} {
			if got := r(); strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("%q, %s: %q, want %q", c.text, name, got, c.want)
			}
		}
	}
}

func lines(t *testing.T, text string, slow bool) []string {
	t.Helper()
	const limit = 8
	r := iotest.DataErrReader(strings.NewReader(text))
	if slow {
		r = iotest.OneByteReader(strings.NewReader(text))
	}
	var out []string
	if err := EachLine(r, limit, func(line string, whole bool) {
		if !whole {
			line = "!" + line
		}
		out = append(out, line)
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// Nothing is lost or added, whatever the text.
func FuzzEachLine(f *testing.F) {
	f.Add("a\nb\n", 4)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 1 || limit > 1<<12 {
			return
		}
		var got strings.Builder
		err := EachLine(strings.NewReader(text), limit, func(line string, whole bool) {
			if len(line) > limit || strings.Contains(line, "\n") {
				t.Errorf("line %q with a limit of %d", line, limit)
			}
			got.WriteString(line)
		})
		if want := strings.ReplaceAll(text, "\n", ""); err != nil || got.String() != want {
			t.Errorf("%q, %v, want %q", got.String(), err, want)
		}
	})
}
