package server

import (
	"math"
	"strings"

	"github.com/confinehq/confine/internal/printable"
)

// Bounds on what an agent's texts can hold, in bytes.
const (
	maxText  = 2048
	maxPath  = 4096
	maxItems = 100_000
)

// clean makes text of an agent safe to store and to print: valid, without
// control characters that a terminal would obey, and bounded.
func clean(text string, limit int) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return printable.Text(text)
}

// cleanAll is clean for a list, which is cut at most items.
func cleanAll(texts []string, limit, most int) []string {
	var out []string
	for _, t := range texts[:min(len(texts), most)] {
		out = append(out, clean(t, limit))
	}
	return out
}

// cleanKind accepts a stable word, kebab-case.
func cleanKind(kind string) string {
	if kind == "" || len(kind) > 64 || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "other"
	}
	return kind
}

// cleanSeconds takes a time that can't be for none.
func cleanSeconds(s float64) float64 {
	if math.IsNaN(s) || math.IsInf(s, 0) || s < 0 {
		return 0
	}
	return s
}
