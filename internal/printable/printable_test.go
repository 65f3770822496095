package printable

import (
	"reflect"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"write":                 "write",
		"naïve — 名前":            "naïve — 名前",
		"a\x1b[31mred":          "a?[31mred",
		"one\ntwo\tthree":       "one two three",
		"\xff\xfe":              "?",
		"left\u202eright":       "left?right", // turns the direction of what follows
		"bell\a\x7f\u009bclear": "bell???clear",
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}

func TestAll(t *testing.T) {
	type inner struct{ Name string }
	type outer struct {
		Text string
		List []inner
		Next *outer
		Map  map[string]inner
		Any  any
		own  string
	}
	const bad, good = "\x1bX", "?X"
	v := &outer{bad, []inner{{bad}}, &outer{Text: bad}, map[string]inner{"k": {bad}}, &inner{bad}, bad}
	All(v)
	want := &outer{good, []inner{{good}}, &outer{Text: good}, map[string]inner{"k": {good}}, &inner{good}, bad}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("%+v, not %+v", v, want)
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b[0m\u202e\xff")
	f.Fuzz(func(t *testing.T, in string) {
		got := Text(in)
		if !utf8.ValidString(got) {
			t.Errorf("%q: %q isn't valid", in, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Errorf("%q: %q holds %U", in, got, r)
			}
		}
		if Text(got) != got {
			t.Errorf("%q: %q changes once more", in, got)
		}
	})
}
