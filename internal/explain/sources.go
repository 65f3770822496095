package explain

import (
	"fmt"
	"strings"

	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// OfServer is the document of a server's answer.
func OfServer(r *confinev1.ExplainResponse, call string) *Document {
	d := &Document{
		Subject: r.GetImage(), Result: r.GetId(), Platform: r.GetPlatform(), Call: call, Unknown: !r.GetExplained(), Left: int(r.GetLeft()),
		Conditions: []string{}, Reasons: []Reason{}, Chains: []Chain{}, Absent: []Absent{},
	}
	d.Nr = number(d.Platform, call)
	if s := r.GetSyscall(); s != nil {
		d.Allowed, d.Nr = true, int(s.GetNr())
		seen := s.GetSeen()
		d.Seen = &seen
		d.Conditions = conditionsOfProto(d.Platform, call, s.GetArgs())
		for _, reason := range s.GetReasons() {
			d.Reasons = append(d.Reasons, Reason{Kind: reason.GetKind(), Detail: reason.GetDetail(), Chain: OfProto(reason.GetChain()), Site: siteOfProto(reason.GetSite())})
		}
	}
	for _, c := range r.GetChains() {
		p := c.GetPlace()
		d.Chains = append(d.Chains, Chain{
			Object: p.GetObject(), Address: p.GetAddress(), Compat: p.GetCompat(), Detail: p.GetDetail(),
			Frames: OfProto(c.GetFrames()), Site: siteOfProto(p.GetSite()),
		})
	}
	for _, a := range r.GetAbsent() {
		d.Absent = append(d.Absent, Absent{
			Object: a.GetObject(), Symbol: a.GetSymbol(), Function: a.GetFunction(), Address: a.GetAddress(),
			Exports: append([]string{}, a.GetExports()...), Users: append([]string{}, a.GetUsers()...), More: int(a.GetMore()),
		})
	}
	return d
}

// OfProto are the frames of a chain that a server keeps.
func OfProto(list []*confinev1.Frame) []Frame {
	out := []Frame{}
	for _, f := range list {
		kind := f.GetKind()
		if kind == "" { // of a result that was made before kinds were kept
			kind = "function"
		}
		out = append(out, Frame{
			Kind: kind, Object: f.GetObject(), Symbol: f.GetSymbol(), Demangled: demangled(kind, f.GetSymbol()), Address: f.GetAddress(),
			Size: uint64(f.GetSize()), Edge: f.GetEdge(), At: f.GetAt(),
		})
	}
	return out
}

func siteOfProto(s *confinev1.Site) Site {
	return Site{s.GetObject(), s.GetAddress(), int(s.GetWrappers())}
}

// OfAnalysis is the document of an analysis that was asked to explain, with at
// most limit chains.
func OfAnalysis(r *analysis.Result, call string, limit int) *Document {
	d := &Document{
		Subject: strings.Join(r.Entrypoints, ", "), Platform: r.Platform, Call: call, Nr: number(r.Platform, call),
		Conditions: []string{}, Reasons: []Reason{}, Chains: []Chain{}, Absent: []Absent{},
	}
	const most = 3
	if n := len(r.Entrypoints); n > most+1 {
		d.Subject = strings.Join(r.Entrypoints[:most], ", ") + fmt.Sprintf(" and %d more programs", n-most)
	}
	widened := false
	for _, s := range r.Syscalls {
		if s.Name != call {
			continue
		}
		d.Allowed, d.Nr = true, s.Nr
		d.Conditions = conditionsOf(d.Platform, call, s.Args)
		for _, reason := range s.Reasons {
			widened = widened || reason.Kind == "fallback"
			d.Reasons = append(d.Reasons, Reason{Kind: reason.Kind, Detail: reason.Detail, Chain: ofFrames(reason.Chain), Site: Site(reason.Site)})
		}
	}
	e := r.Explanation
	if e == nil {
		d.Unknown = true
		return d
	}
	d.Left = e.Left[call]
	for _, p := range e.Places {
		switch {
		case p.Call != call && (p.Call != "" || !widened):
		case len(d.Chains) >= limit:
			d.Left++
		default:
			d.Chains = append(d.Chains, Chain{Object: p.Object, Address: p.Address, Compat: p.Compat, Detail: p.Detail, Frames: ofFrames(e.Chain(p.Step)), Site: Site(p.Site)})
		}
	}
	for _, a := range e.Absent {
		if a.Call == call && !d.Allowed {
			d.Absent = append(d.Absent, Absent{a.Object, a.Symbol, a.Function, a.Address, append([]string{}, a.Exports...), append([]string{}, a.Users...), a.More})
		}
	}
	return d
}

func ofFrames(list []analysis.Frame) []Frame {
	out := []Frame{}
	for _, f := range list {
		out = append(out, Frame{Kind: f.Kind, Object: f.Object, Symbol: f.Symbol, Demangled: demangled(f.Kind, f.Symbol), Address: f.Address, Size: f.Size, Edge: f.Edge})
	}
	return out
}

func demangled(kind, symbol string) string {
	if kind != "function" {
		return ""
	}
	return Demangle(symbol)
}

func number(platform, call string) int {
	if arch, ok := syscalls.ForPlatform(platform); ok {
		if nr, ok := syscalls.Number(arch, call); ok {
			return nr
		}
	}
	return -1
}
