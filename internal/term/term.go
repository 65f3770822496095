// Package term writes for people: colours where the terminal has them, lines
// that fit its width, live progress where it can be redrawn and plain lines
// where it can't.
package term

import (
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"
	"golang.org/x/term"
)

// plainWidth is the width assumed where nothing tells one: old enough to fit
// everywhere, wide enough for a sentence.
const plainWidth = 80

// Output is one stream that text goes to.
type Output struct {
	io.Writer
	// Terminal is true when a person looks at it.
	Terminal bool
	// Redraw is true when lines can be written again in place.
	Redraw bool
	// Styles colours words; it changes nothing where there is no colour.
	Styles Styles
	// Symbols are the marks in front of lines.
	Symbols Symbols

	fd int
}

// Styles are the few ways in which words stand out. Only the 16 colours that
// every terminal theme sets are used, so that no background must be asked for.
type Styles struct {
	Title, Good, Warn, Bad, Dim, Name lipgloss.Style
}

// Symbols are marks; the plain set is ASCII.
type Symbols struct {
	Done, Failed, Skipped, Waiting, Warn, Arrow, Ellipsis string
	Spin                                                  []string
}

// NewOutput looks at where w goes. getenv gives NO_COLOR, TERM and the locale.
func NewOutput(w io.Writer, getenv func(string) string) *Output {
	o := &Output{Writer: w, fd: -1, Symbols: symbols(getenv)}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		o.fd, o.Terminal = int(f.Fd()), true
	}
	name := getenv("TERM")
	o.Redraw = o.Terminal && name != "dumb" && name != ""
	profile := termenv.Ascii
	if o.Redraw && getenv("NO_COLOR") == "" {
		profile = termenv.ANSI
	}
	o.Styles = styles(w, profile)
	return o
}

// Width is the number of columns; 80 where there is no terminal.
func (o *Output) Width() int {
	if o.fd >= 0 {
		if w, _, err := term.GetSize(o.fd); err == nil && w > 0 {
			return w
		}
	}
	return plainWidth
}

// Height is the number of rows; 0 where there is no terminal.
func (o *Output) Height() int {
	if o.fd >= 0 {
		if _, h, err := term.GetSize(o.fd); err == nil {
			return h
		}
	}
	return 0
}

func styles(w io.Writer, profile termenv.Profile) Styles {
	r := lipgloss.NewRenderer(w)
	r.SetColorProfile(profile)
	s := func() lipgloss.Style { return r.NewStyle() }
	colour := func(c string) lipgloss.Style { return s().Foreground(lipgloss.Color(c)) }
	st := Styles{
		Title: s().Bold(true),
		Good:  colour("2"),
		Warn:  colour("3"),
		Bad:   colour("1"),
		Dim:   colour("8"),
		Name:  colour("6"),
	}
	return st
}

// symbols picks Unicode marks when the locale can show them.
func symbols(getenv func(string) string) Symbols {
	locale := getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = getenv(name)
		}
	}
	locale = strings.ToLower(locale)
	if strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8") {
		return Symbols{
			Done: "✓", Failed: "✗", Skipped: "–", Waiting: "·", Warn: "!", Arrow: "→", Ellipsis: "…",
			Spin: []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"},
		}
	}
	return Symbols{
		Done: "+", Failed: "x", Skipped: "-", Waiting: ".", Warn: "!", Arrow: "->", Ellipsis: "...",
		Spin: []string{"|", "/", "-", "\\"},
	}
}
