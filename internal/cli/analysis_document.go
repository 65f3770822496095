package cli

import (
	"fmt"
	"strings"

	"github.com/confinehq/confine/internal/term"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/syscalls"
)

// analysisDocument is what 'analyze -o json' prints: a contract with users,
// with the names that results of the server have, too. No list is null.
type analysisDocument struct {
	Platform    string           `json:"platform"`
	Entrypoints []string         `json:"entrypoints"`
	Objects     []objectDocument `json:"objects"`
	Syscalls    []callDocument   `json:"syscalls"`
	// Narrowed is the number of calls that are made with certain arguments only.
	Narrowed   int             `json:"narrowed_syscalls"`
	Incomplete []issueDocument `json:"incomplete"`
	Notes      []issueDocument `json:"notes"`
	// Surplus is there only when it was asked for.
	Surplus []surplusDocument `json:"surplus,omitempty"`
	// Pointers is, too.
	Pointers []pointersDocument `json:"pointers,omitempty"`
}

type pointersDocument struct {
	Program string   `json:"program"`
	Count   int      `json:"count"`
	Calls   []string `json:"calls"`
}

type surplusDocument struct {
	Program string `json:"program"`
	frameDocument
	Calls []string        `json:"calls"`
	Chain []frameDocument `json:"chain"`
}

type objectDocument struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Origin string `json:"origin"`
	Cached bool   `json:"cached"`
	// Size in bytes.
	Size int64 `json:"size"`
	// Config names a configured one.
	Config string `json:"config,omitempty"`
}

type callDocument struct {
	Name    string           `json:"name"`
	Nr      int              `json:"nr"`
	Args    []argDocument    `json:"args"`
	Reasons []reasonDocument `json:"reasons"`
}

type argDocument struct {
	Index    uint   `json:"index"`
	Op       string `json:"op"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"value_two"`
}

type reasonDocument struct {
	Kind   string          `json:"kind"`
	Chain  []frameDocument `json:"chain"`
	Detail string          `json:"detail"`
	Site   siteDocument    `json:"site"`
}

type siteDocument struct {
	Object   string `json:"object"`
	Address  uint64 `json:"address"`
	Wrappers int    `json:"wrappers"`
}

type frameDocument struct {
	Kind    string `json:"kind"`
	Object  string `json:"object"`
	Symbol  string `json:"symbol"`
	Address uint64 `json:"address"`
	// Size in bytes.
	Size uint64 `json:"size"`
	Edge string `json:"edge"`
}

type issueDocument struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Detail string `json:"detail"`
}

func analysisDocumentOf(r *analysis.Result) analysisDocument {
	d := analysisDocument{
		Platform:    r.Platform,
		Entrypoints: append([]string{}, r.Entrypoints...),
		Objects:     []objectDocument{},
		Syscalls:    []callDocument{},
		Incomplete:  issueDocuments(r.Incomplete),
		Notes:       issueDocuments(r.Notes),
	}
	for _, o := range r.Objects {
		d.Objects = append(d.Objects, objectDocument{o.Path, o.SHA256, string(o.Origin), o.Cached, o.Size, o.Config})
	}
	for _, s := range r.Syscalls {
		d.Syscalls = append(d.Syscalls, callDocumentOf(s))
		if len(s.Args) > 0 {
			d.Narrowed++
		}
	}
	for _, k := range r.Surplus {
		d.Surplus = append(d.Surplus, surplusDocument{k.Program, frameDocument(k.Frame), k.Calls, frameDocuments(k.Chain)})
	}
	for _, p := range r.Pointers {
		d.Pointers = append(d.Pointers, pointersDocument(p))
	}
	return d
}

func frameDocuments(chain []analysis.Frame) []frameDocument {
	out := []frameDocument{}
	for _, f := range chain {
		out = append(out, frameDocument(f))
	}
	return out
}

func callDocumentOf(s analysis.Syscall) callDocument {
	c := callDocument{Name: s.Name, Nr: s.Nr, Args: []argDocument{}, Reasons: []reasonDocument{}}
	for _, arg := range s.Args {
		c.Args = append(c.Args, argDocument(arg))
	}
	for _, reason := range s.Reasons {
		doc := reasonDocument{Kind: reason.Kind, Chain: frameDocuments(reason.Chain), Detail: reason.Detail, Site: siteDocument(reason.Site)}
		c.Reasons = append(c.Reasons, doc)
	}
	return c
}

func issueDocuments(list []analysis.Issue) []issueDocument {
	docs := []issueDocument{}
	for _, i := range list {
		docs = append(docs, issueDocument(i))
	}
	return docs
}

// maxSurplus bounds the rows that a person gets to see.
const maxSurplus = 40

// writeSurplus ranks what brings in calls that nothing else does.
func writeSurplus(o *term.Output, list []analysis.Surplus) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(o)
	rows := [][]string{{"ONLY", "THROUGH", "CALLS"}}
	for _, k := range list[:min(len(list), maxSurplus)] {
		where := k.Symbol
		if where == "" || strings.HasPrefix(where, ".") {
			where += fmt.Sprintf("+%#x", k.Address)
		}
		rows = append(rows, []string{fmt.Sprint(len(k.Calls)), where + " in " + k.Object, o.Styles.Dim.Render(strings.Join(k.Calls, " "))})
	}
	return term.Table(o, rows)
}

// writePointers tells how many pointers in data the calls of each program need.
func writePointers(o *term.Output, list []analysis.Pointers) error {
	if len(list) == 0 {
		return nil
	}
	rows := [][]string{{"POINTERS", "CALLS", "OF", "THAT NEED SO MANY IN DATA"}}
	for _, p := range list {
		calls := "no finer view of data can remove them"
		if p.Count > 0 {
			calls = strings.Join(p.Calls, " ")
		}
		rows = append(rows, []string{fmt.Sprint(p.Count), fmt.Sprint(len(p.Calls)), p.Program, o.Styles.Dim.Render(calls)})
	}
	fmt.Fprintln(o)
	return term.Table(o, rows)
}

// writeAnalysis is the answer for a person: every call with the place that
// needs it, and a summary below.
func writeAnalysis(o *term.Output, r *analysis.Result) error {
	rows := [][]string{{"NR", "CALL", "WHERE"}}
	for _, s := range r.Syscalls {
		name := s.Name
		if len(s.Args) > 0 {
			name += " (conditions)"
		}
		rows = append(rows, []string{fmt.Sprint(s.Nr), name, o.Styles.Dim.Render(origination(s))})
	}
	if err := term.Table(o, rows); err != nil {
		return err
	}
	if err := writeSurplus(o, r.Surplus); err != nil {
		return err
	}
	if err := writePointers(o, r.Pointers); err != nil {
		return err
	}
	s := summary{o: o, width: o.Width()}
	fmt.Fprintln(o)
	total := ""
	if arch, ok := syscalls.ForPlatform(r.Platform); ok {
		total = fmt.Sprintf(" of the %d that the kernel has", syscalls.Count(arch))
	}
	s.row("calls", fmt.Sprintf("%s allowed%s (%s)", o.Styles.Title.Render(fmt.Sprint(len(r.Syscalls))), total, r.Platform))
	if n := analysisDocumentOf(r).Narrowed; n > 0 {
		s.row("", fmt.Sprintf("%d with certain arguments only", n))
	}
	s.row("programs", fmt.Sprintf("%d: %s", len(r.Entrypoints), listed(r.Entrypoints)))
	cached := 0
	for _, object := range r.Objects {
		if object.Cached {
			cached++
		}
	}
	s.row("objects", fmt.Sprintf("%d ELF files, %d known from earlier", len(r.Objects), cached))
	s.issues("incomplete", o.Styles.Warn.Render, analysisIssues(r.Incomplete))
	s.issues("notes", o.Styles.Dim.Render, analysisIssues(r.Notes))
	return nil
}

// origination is the shortest reason in a few words.
func origination(s analysis.Syscall) string {
	if len(s.Reasons) == 0 {
		return ""
	}
	reason := s.Reasons[0]
	if len(reason.Chain) == 0 {
		return strings.TrimSpace(reason.Kind + " " + reason.Detail)
	}
	last := reason.Chain[len(reason.Chain)-1]
	name := first(last.Symbol, fmt.Sprintf("+0x%x", last.Address))
	return name + " in " + last.Object
}
