package explain

import (
	"fmt"
	"path"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/confinehq/confine/internal/term"
)

// mostReasons is the number of reasons that a person gets to see who didn't ask
// for all.
const mostReasons = 3

// Text writes a document for a person. With all, every chain that the document
// has is written.
func Text(o *term.Output, d *Document, all bool) {
	if !d.Allowed {
		absent(o, d)
		return
	}
	heading(o, d)
	written := 0
	if all && len(d.Chains) > 0 {
		written = len(d.Chains)
		for i, c := range d.Chains {
			fmt.Fprintf(o, "\n%d. %s\n", i+1, o.Styles.Dim.Render(chainTitle(c)))
			Frames(o, c.Frames, "   ")
			end(o, "   ", d, c.Frames, c.Site, c.Object, c.Address, c.Detail)
		}
	}
	for _, r := range d.Reasons {
		if len(r.Chain) > 0 && all && len(d.Chains) > 0 {
			continue // one of those above
		}
		if written++; !all && written > mostReasons && len(d.Reasons) > mostReasons+1 {
			fmt.Fprintf(o, "\n%s\n", o.Styles.Dim.Render(fmt.Sprintf("and %d more reasons, of other programs or none", len(d.Reasons)-mostReasons)))
			break
		}
		fmt.Fprintf(o, "\n%d. %s\n", written, strings.TrimSpace(Word(r.Kind)+o.Styles.Dim.Render(" "+r.Detail)))
		Frames(o, r.Chain, "   ")
		if len(r.Chain) > 0 {
			end(o, "   ", d, r.Chain, r.Site, "", 0, "")
		}
	}
	more(o, d, all)
}

func heading(o *term.Output, d *Document) {
	text := fmt.Sprintf("%s (%d)%s%s", o.Styles.Title.Render(d.Call), d.Nr, verdict(d), d.Subject)
	if d.Seen != nil {
		text += map[bool]string{true: ", seen during the run", false: ", not seen during the run"}[*d.Seen]
	}
	fmt.Fprintln(o, text)
	for _, c := range d.Conditions {
		fmt.Fprintf(o, "  only with %s\n", c)
	}
}

// Word says what a kind of reason means.
func Word(kind string) string {
	switch kind {
	case "site":
		return "a call site is reachable:"
	case "floor":
		return "the container runtime needs it to start the container:"
	case "kernel":
		return "the kernel makes it for the program:"
	case "fallback":
		return "an imprecision was widened:"
	}
	return kind + ":"
}

func chainTitle(c Chain) string {
	text := at(c.Object, c.Address)
	if c.Compat {
		text += ", through the 32-bit gate"
	}
	if n := len(c.Frames); n > 1 {
		text += fmt.Sprintf(", %d steps", n-1)
	}
	return text
}

// more says what else there is to see.
func more(o *term.Output, d *Document, all bool) {
	switch n := len(d.Chains) + d.Left; {
	case all && d.Left > 0:
		fmt.Fprintf(o, "\n%d more places are left out, see --limit\n", d.Left)
	case !all && n > 1:
		fmt.Fprintf(o, "\n%s\n", o.Styles.Dim.Render(fmt.Sprintf("%d places make it; --all shows them", n)))
	case d.Unknown && all:
		fmt.Fprintf(o, "\nonly this is known: the result was made by an older version; profile the image again for all places\n")
	}
}

// Frames writes a chain: an object's path where it changes, and below it a line
// for each frame, which says what the frame before does with it.
func Frames(o *term.Output, frames []Frame, indent string) {
	verbs, names := 0, 0
	for _, f := range frames {
		verbs = max(verbs, len(f.verb()))
		names = max(names, ansi.StringWidth(f.Name()))
	}
	room := 1 << 20
	if o.Terminal {
		room = o.Width() - 1
	}
	names = min(names, max(16, room-len(indent)-2-verbs-2-2-12))
	object := ""
	for _, f := range frames {
		if f.Kind == "program" {
			object = f.Object
			verb := ""
			if f.Edge != "program" {
				verb = o.Styles.Dim.Render(f.verb()) + " "
			}
			fmt.Fprintln(o, clip(o, indent+verb+o.Styles.Name.Render(f.Object), room))
			continue
		}
		if f.Object != object && f.Object != "" {
			object = f.Object
			fmt.Fprintln(o, clip(o, indent+o.Styles.Name.Render(object), room))
		}
		name := clip(o, f.Name(), names)
		place := f.place()
		if f.At != 0 {
			place = strings.TrimSpace(place + fmt.Sprintf(" from +%#x", f.At))
		}
		line := indent + "  " + o.Styles.Dim.Render(term.Pad(f.verb(), verbs)) + "  " + term.Pad(name, names) + "  " + o.Styles.Dim.Render(place)
		fmt.Fprintln(o, clip(o, strings.TrimRight(line, " "), room))
	}
}

func clip(o *term.Output, text string, width int) string {
	if !o.Terminal {
		return text
	}
	return ansi.Truncate(text, width, o.Symbols.Ellipsis)
}

// end says where the kernel is entered, and who decides the number.
func end(o *term.Output, indent string, d *Document, frames []Frame, s Site, object string, address uint64, why string) {
	text := ""
	switch {
	case s.Address != 0:
		text = "enters the kernel at " + at(s.Object, s.Address)
	case s.Object != "":
		text = "enters the kernel in " + path.Base(s.Object)
	default:
		return
	}
	switch {
	case why != "":
		text += "; the number can be any: " + why
	case s.Wrappers > 0 && len(frames) > s.Wrappers:
		by := frames[len(frames)-1-s.Wrappers]
		text += fmt.Sprintf("; the number %d comes from %s", d.Nr, by.Name())
		if address != 0 {
			text += fmt.Sprintf(" (at +%#x)", address)
		}
		if s.Wrappers > 1 {
			text += fmt.Sprintf(" through %d functions", s.Wrappers)
		}
	}
	width := 100
	if o.Terminal {
		width = o.Width()
	}
	fmt.Fprintln(o, indent+"  "+term.Wrap(text, len(indent)+2, width))
}

// absent says that a call isn't allowed, and what comes nearest to it.
func absent(o *term.Output, d *Document) {
	fmt.Fprintf(o, "%s (%d)%s%s: no code that the analysis reached makes it\n", o.Styles.Title.Render(d.Call), d.Nr, verdict(d), d.Subject)
	if d.Unknown {
		return
	}
	if len(d.Absent) == 0 {
		fmt.Fprintln(o, "no object of it has code that makes the call")
		return
	}
	fmt.Fprintln(o, "\nnearest: code that makes it and that nothing reaches")
	object := ""
	for _, a := range d.Absent {
		if a.Object != object {
			object = a.Object
			fmt.Fprintf(o, "  %s\n", o.Styles.Name.Render(object))
		}
		f := Frame{Kind: "function", Symbol: a.Symbol, Demangled: Demangle(a.Symbol), Address: a.Function}
		name := f.Name()
		if p := f.place(); p != "" {
			name += " " + o.Styles.Dim.Render(p)
		}
		fmt.Fprintf(o, "    %s\n", name)
		if len(a.Exports) > 0 {
			fmt.Fprintf(o, "      exported as %s, which nothing that is reached imports or looks up\n", strings.Join(a.Exports, ", "))
		}
		switch {
		case len(a.Users) == 1:
			fmt.Fprintf(o, "      referred to by %s, which nothing reaches\n", a.Users[0])
		case len(a.Users) > 1:
			fmt.Fprintf(o, "      referred to by %s, none of them reached\n", strings.Join(a.Users, ", "))
		case len(a.Exports) == 0:
			fmt.Fprintln(o, "      nothing in the object refers to it")
		}
		if a.More > 0 {
			fmt.Fprintf(o, "  and %d more places\n", a.More)
		}
	}
}
