package facts

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Record is one fact of an object in the form in which facts are printed: the
// object itself, an import, an export, a region of data or a function. Only the
// fields of its kind are set. Others are referred to by their address and name.
type Record struct {
	// Kind is "object", "import", "export", "region" or "function".
	Kind string `json:"kind"`
	// Object is the path of the object, in every record.
	Object string `json:"object"`

	Machine  string   `json:"machine,omitempty"`
	Bytes    int64    `json:"bytes,omitempty"` // size of the file
	Interp   string   `json:"interpreter,omitempty"`
	Soname   string   `json:"soname,omitempty"`
	Paths    []string `json:"paths,omitempty"` // RPATH, RUNPATH
	Needed   []string `json:"needed,omitempty"`
	Flags    []string `json:"flags,omitempty"`
	Warnings []string `json:"warnings,omitempty"`

	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	// Start and End are addresses of a region or a function.
	Start uint64 `json:"start,omitempty"`
	End   uint64 `json:"end,omitempty"`
	// Refs are where control and addresses go from here.
	Refs  []Ref        `json:"refs,omitempty"`
	Sites []SiteRecord `json:"sites,omitempty"`
	// Args tells what all direct calls of an import pass, by parameter.
	Args []string `json:"args,omitempty"`
	// Passes tells what a function passes to others.
	Passes []PassRecord `json:"passes,omitempty"`
}

// PassRecord is what a function passes to another one, or to an import, at all
// places that call it directly.
type PassRecord struct {
	To   Ref      `json:"to"`
	Args []string `json:"args"`
}

// Ref is one way on.
type Ref struct {
	// How is the kind of an edge ("call", "ref", "table", "fall", "inner"), or
	// "import", "import-ref", "data", "text", "is" (what an export or an import
	// of the object's own is).
	How     string `json:"how"`
	Name    string `json:"name,omitempty"`
	Address uint64 `json:"address,omitempty"`
}

// SiteRecord is one site.
type SiteRecord struct {
	Address uint64   `json:"address"`
	Kind    string   `json:"kind"`
	Numbers []int32  `json:"numbers,omitempty"`
	Params  []string `json:"params,omitempty"`
	Args    []string `json:"args,omitempty"`
	// Via is the wrapper that is called.
	Via   *Ref     `json:"via,omitempty"`
	Flags []string `json:"flags,omitempty"`
	Why   string   `json:"why,omitempty"` // the numbers are not all known
}

// String is the name that printed facts use.
func (k EdgeKind) String() string {
	switch k {
	case EdgeCall:
		return "call"
	case EdgeRef:
		return "ref"
	case EdgeTable:
		return "table"
	case EdgeFall:
		return "fall"
	case EdgeInner:
		return "inner"
	}
	return fmt.Sprintf("edge-%d", uint8(k))
}

// String is the name that printed facts use.
func (k SiteKind) String() string {
	switch k {
	case SiteSyscall:
		return "syscall"
	case SiteInt80:
		return "int80"
	case SiteSysenter:
		return "sysenter"
	}
	return fmt.Sprintf("site-%d", uint8(k))
}

// Records calls visit with every fact of an object at path, in a stable order:
// the object, imports, exports, regions and functions. It ends with the first
// error of visit.
func (f *Facts) Records(path string, visit func(*Record) error) error {
	if err := visit(f.objectRecord(path)); err != nil {
		return err
	}
	for i := range f.Imports {
		if err := visit(f.importRecord(path, &f.Imports[i])); err != nil {
			return err
		}
	}
	for i := range f.Exports {
		e := &f.Exports[i]
		r := &Record{Kind: "export", Object: path, Name: e.Name, Version: e.Version, Refs: f.is(e.Func, e.Region)}
		r.flag(e.Hidden, "hidden")
		r.flag(e.IFunc, "ifunc")
		if err := visit(r); err != nil {
			return err
		}
	}
	root := map[uint32]bool{}
	for _, i := range f.RootRegions {
		root[i] = true
	}
	for i := range f.Regions {
		if err := visit(f.regionRecord(path, &f.Regions[i], root[uint32(i)])); err != nil {
			return err
		}
	}
	clear(root)
	for _, i := range f.Roots {
		root[i] = true
	}
	held := map[uint32]bool{}
	for _, i := range f.Held {
		held[i] = true
	}
	for i := range f.Funcs {
		r := f.functionRecord(path, uint32(i))
		r.flag(f.Entry == uint32(i)+1, "entry")
		r.flag(root[uint32(i)], "root")
		r.flag(held[uint32(i)], "held")
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

func (r *Record) flag(set bool, name string) {
	if set {
		r.Flags = append(r.Flags, name)
	}
}

func (f *Facts) objectRecord(path string) *Record {
	r := &Record{Kind: "object", Object: path, Machine: strings.TrimPrefix(f.Machine.String(), "EM_"), Bytes: f.Size, Interp: f.Interp, Soname: f.Soname, Needed: f.Needed, Warnings: f.Warnings}
	for _, p := range []string{f.RPath, f.RunPath} {
		if p != "" {
			r.Paths = append(r.Paths, p)
		}
	}
	r.flag(f.Go, "go")
	r.flag(f.IsPIE, "pie")
	r.flag(f.NoDefLib, "nodeflib")
	for _, i := range f.RootImports {
		r.Refs = append(r.Refs, Ref{How: "import", Name: f.Imports[i].Name})
	}
	return r
}

func (f *Facts) importRecord(path string, m *Import) *Record {
	r := &Record{Kind: "import", Object: path, Name: m.Name, Version: m.Version}
	r.flag(m.Weak, "weak")
	r.flag(m.Copy, "copy")
	r.flag(m.Own, "own")
	r.Args = f.passedArgs(m.Args)
	if m.Own {
		r.Refs = f.is(m.OwnFunc, m.OwnRegion)
	}
	return r
}

// is refers to a function or a region by index+1.
func (f *Facts) is(fn, region uint32) []Ref {
	switch {
	case fn > 0:
		return []Ref{f.funcRef("is", fn-1)}
	case region > 0:
		return []Ref{f.regionRef("is", region-1)}
	}
	return nil
}

func (f *Facts) funcRef(how string, i uint32) Ref {
	return Ref{How: how, Name: f.Symbols[i], Address: f.Funcs[i].Start}
}

func (f *Facts) regionRef(how string, i uint32) Ref {
	return Ref{How: how, Name: f.Regions[i].Name, Address: f.Regions[i].Start}
}

func (f *Facts) regionRecord(path string, g *Region, root bool) *Record {
	r := &Record{Kind: "region", Object: path, Name: g.Name, Start: g.Start, End: g.End}
	r.flag(root, "root")
	for _, i := range g.Funcs {
		r.Refs = append(r.Refs, f.funcRef("ref", i))
	}
	for _, i := range g.Imports {
		r.Refs = append(r.Refs, Ref{How: "import-ref", Name: f.Imports[i].Name})
	}
	f.rest(r, g.Regions, g.Strings)
	return r
}

// rest adds data and texts.
func (f *Facts) rest(r *Record, regions, texts []uint32) {
	for _, i := range regions {
		r.Refs = append(r.Refs, f.regionRef("data", i))
	}
	for _, i := range texts {
		r.Refs = append(r.Refs, Ref{How: "text", Name: f.Strings[i]})
	}
}

func (f *Facts) functionRecord(path string, at uint32) *Record {
	fn := &f.Funcs[at]
	r := &Record{Kind: "function", Object: path, Name: f.Symbols[at], Start: fn.Start, End: fn.End}
	r.flag(fn.ComputedJump, "computed-jump")
	r.flag(fn.Generic, "calls-from-table")
	for _, e := range fn.Edges {
		r.Refs = append(r.Refs, f.funcRef(e.Kind.String(), e.To))
	}
	for _, u := range fn.Imports {
		how := "import-ref"
		if u.Called {
			how = "import"
		}
		r.Refs = append(r.Refs, Ref{How: how, Name: f.Imports[u.Import].Name})
	}
	f.rest(r, fn.Regions, fn.Strings)
	for i := range fn.Sites {
		r.Sites = append(r.Sites, f.siteRecord(&fn.Sites[i]))
	}
	for i := range fn.Passes {
		p := &fn.Passes[i]
		to := Ref{How: "import"}
		if p.Import {
			to.Name = f.Imports[p.To].Name
		} else {
			to = f.funcRef("call", p.To)
		}
		r.Passes = append(r.Passes, PassRecord{to, f.passedArgs(p.Args)})
	}
	return r
}

// passedArgs writes arguments whose positions are locations of parameters.
func (f *Facts) passedArgs(list []Arg) []string {
	var out []string
	for i := range list {
		out = append(out, f.arg(Loc(list[i].At).On(f.Machine), &list[i]))
	}
	return out
}

// arg writes what an argument can be.
func (f *Facts) arg(at string, a *Arg) string {
	text := at + ":"
	for _, v := range a.Values {
		text += fmt.Sprintf(" %#x", v)
	}
	for _, p := range a.Params {
		text += " from " + p.On(f.Machine)
	}
	return text
}

func (f *Facts) siteRecord(s *Site) SiteRecord {
	r := SiteRecord{Address: s.Addr, Kind: s.Kind.String(), Numbers: s.Nrs, Why: s.Unresolved}
	for _, p := range s.Params {
		r.Params = append(r.Params, p.On(f.Machine))
	}
	for i := range s.Args {
		r.Args = append(r.Args, f.arg(fmt.Sprint(s.Args[i].At), &s.Args[i]))
	}
	if s.Via > 0 && int(s.Via) <= len(f.Funcs) {
		via := f.funcRef("call", s.Via-1)
		r.Via = &via
	}
	if s.Derefs {
		r.Flags = append(r.Flags, "behind-pointer")
	}
	if s.Called {
		r.Flags = append(r.Flags, "takers-known")
	}
	if len(s.Vars) > 0 {
		r.Flags = append(r.Flags, "in-exported-variable")
	}
	return r
}

// Print writes facts as text, a line for each fact; with asJSON as JSON, one
// record a line. It needs no more memory than one record takes.
func (f *Facts) Print(w io.Writer, path string, asJSON bool) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	err := f.Records(path, func(r *Record) error {
		if asJSON {
			return e.Encode(r)
		}
		return r.print(b)
	})
	if err == nil {
		err = b.Flush()
	}
	if err != nil {
		return fmt.Errorf("print facts of %s: %w", path, err)
	}
	return nil
}

// print writes a record: a heading, and below it a line for each thing that is
// known of it.
func (r *Record) print(b *bufio.Writer) error {
	head := r.Kind
	if r.Kind == "object" {
		head += " " + Clean(r.Object)
	}
	if r.Kind == "region" || r.Kind == "function" {
		head += fmt.Sprintf(" %#x-%#x", r.Start, r.End)
	}
	if r.Name != "" {
		head += " " + Clean(r.Name)
	}
	if r.Version != "" {
		head += "@" + Clean(r.Version)
	}
	if len(r.Flags) > 0 {
		head += " [" + strings.Join(r.Flags, " ") + "]"
	}
	fmt.Fprintln(b, head)
	if r.Kind == "object" {
		r.printObject(b)
	}
	for _, x := range r.Refs {
		fmt.Fprintln(b, "  "+x.text())
	}
	for i := range r.Sites {
		fmt.Fprintln(b, "  "+r.Sites[i].text())
	}
	for _, a := range r.Args {
		fmt.Fprintln(b, "  parameter "+a)
	}
	for i := range r.Passes {
		p := &r.Passes[i]
		fmt.Fprintf(b, "  passes to %s: %s\n", p.To.text(), strings.Join(p.Args, ", "))
	}
	_, err := b.Write(nil) // the first error of the writer below
	return err
}

func (r *Record) printObject(b *bufio.Writer) {
	fmt.Fprintf(b, "  machine %s, %d bytes\n", r.Machine, r.Bytes)
	for _, x := range []struct{ what, is string }{{"interpreter", r.Interp}, {"soname", r.Soname}, {"path", strings.Join(r.Paths, " ")}, {"needed", strings.Join(r.Needed, " ")}} {
		if x.is != "" {
			fmt.Fprintf(b, "  %s %s\n", x.what, Clean(x.is))
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(b, "  warning %s\n", Clean(w))
	}
}

func (x *Ref) text() string {
	out := x.How
	if x.Address != 0 {
		out += fmt.Sprintf(" %#x", x.Address)
	}
	if x.How == "text" {
		return out + fmt.Sprintf(" %q", x.Name)
	}
	if x.Name != "" {
		out += " " + Clean(x.Name)
	}
	return out
}

func (s *SiteRecord) text() string {
	out := fmt.Sprintf("site %#x %s", s.Address, s.Kind)
	if len(s.Numbers) > 0 {
		out += " numbers " + strings.Trim(fmt.Sprint(s.Numbers), "[]")
	}
	if len(s.Params) > 0 {
		out += " from " + strings.Join(s.Params, ", ")
	}
	if s.Via != nil {
		out += fmt.Sprintf(" via %#x", s.Via.Address)
		if s.Via.Name != "" {
			out += " " + Clean(s.Via.Name)
		}
	}
	for _, a := range s.Args {
		out += " argument " + a
	}
	if len(s.Flags) > 0 {
		out += " [" + strings.Join(s.Flags, " ") + "]"
	}
	if s.Why != "" {
		out += " any: " + Clean(s.Why)
	}
	return out
}

// Clean keeps names of hostile files from moving a terminal's cursor.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
