package cli

import (
	"fmt"
	"io"

	"github.com/confinehq/confine/pkg/analysis"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// issue is a line about something that is missing or should be known.
type issue struct{ kind, text string }

func resultIssues(list []*confinev1.Incomplete) []issue {
	var out []issue
	for _, i := range list {
		out = append(out, newIssue(i.GetKind(), i.GetObject(), i.GetDetail()))
	}
	return out
}

func analysisIssues(list []analysis.Issue) []issue {
	var out []issue
	for _, i := range list {
		out = append(out, newIssue(i.Kind, i.Object, i.Detail))
	}
	return out
}

func newIssue(kind, object, detail string) issue {
	if object == "" {
		return issue{kind, detail}
	}
	return issue{kind, object + ": " + detail}
}

// few keeps the first of each kind, so that many of one don't hide the others,
// and says how many are left out.
func few(list []issue) []issue {
	count := map[string]int{} // by kind
	var out, left []issue
	for _, i := range list {
		count[i.kind]++
		switch n := count[i.kind]; {
		case n <= mostListed:
			out = append(out, i)
		case n == mostListed+1:
			left = append(left, issue{kind: i.kind})
		}
	}
	for _, i := range left {
		out = append(out, issue{i.kind, fmt.Sprintf("and %d more of this kind, see -o json", count[i.kind]-mostListed)})
	}
	return out
}

// sayMissing writes issues as a script's log should keep them.
func sayMissing(w io.Writer, list []issue) {
	for _, i := range few(list) {
		fmt.Fprintf(w, "incomplete: %s: %s\n", i.kind, i.text)
	}
}

// issues lists what is missing, or what should be known.
func (s summary) issues(label string, style func(...string) string, list []issue) {
	if len(list) == 0 && label == "incomplete" {
		s.row(label, "nothing")
	}
	for _, i := range few(list) {
		kind := i.kind
		if style != nil {
			kind = style(kind)
		}
		s.row(label, kind+" "+i.text)
		label = ""
	}
}
