package term

import (
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// gap separates columns.
const gap = "  "

// Table writes rows in columns that are as wide as their widest cell. The
// first row is the heading. Cells may hold colour.
func Table(o *Output, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if n == 0 {
				cell = o.Styles.Title.Render(cell)
			}
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(Pad(cell, widths[i])[len(cell):] + gap)
			}
		}
		text := line.String()
		if o.Terminal {
			text = ansi.Truncate(text, o.Width(), o.Symbols.Ellipsis)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	_, err := io.WriteString(o, b.String())
	return err
}

// Pad adds spaces to the right until text is width columns wide.
func Pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
}

// nonBreaking is a hyphen at which no line is broken.
const nonBreaking = "\u2011"

// Wrap breaks text at spaces so that, behind an indent of indent columns, no
// line is wider than width. Lines after the first carry the indent.
func Wrap(text string, indent, width int) string {
	room := max(width-indent, 20)
	// Hyphens are no place to break: they are part of options and names.
	text = ansi.Wrap(strings.ReplaceAll(text, "-", nonBreaking), room, " ")
	lines := strings.Split(strings.ReplaceAll(text, nonBreaking, "-"), "\n")
	return strings.Join(lines, "\n"+strings.Repeat(" ", indent))
}
