package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// maxProfile bounds a written profile, in bytes.
const maxProfile = 16 << 20

// Read reads a profile in its flat form and checks it: runtimes ignore names
// that they don't know, so that a spelling mistake would go unnoticed there.
func Read(data []byte) (*Profile, error) {
	p, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	return p, nil
}

func read(data []byte) (*Profile, error) {
	if len(data) > maxProfile {
		return nil, fmt.Errorf("%d bytes are more than the limit of %d", len(data), maxProfile)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var doc document
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the profile")
	}
	p, err := doc.profile()
	if err != nil {
		return nil, err
	}
	return p, p.check()
}

// document is what profiles of others hold as well.
type document struct {
	Profile
	Syscalls []documentRule `json:"syscalls"`
	// Fields of Docker's and Podman's own files.
	ArchMap      json.RawMessage `json:"archMap"`
	DefaultErrno json.RawMessage `json:"defaultErrno"`
	// Fields of OCI that make the runtime talk to somebody.
	ListenerPath     string `json:"listenerPath"`
	ListenerMetadata string `json:"listenerMetadata"`
}

type documentRule struct {
	Rule
	// Name is Docker's old form of Names.
	Name     string          `json:"name"`
	Comment  string          `json:"comment"`
	Includes json.RawMessage `json:"includes"`
	Excludes json.RawMessage `json:"excludes"`
	Errno    json.RawMessage `json:"errno"`
}

func (d *document) profile() (*Profile, error) {
	if !empty(d.ArchMap) {
		return nil, errors.New("it has an archMap, so that its architectures depend on the machine; write it flat, with architectures")
	}
	if d.ListenerPath != "" || d.ListenerMetadata != "" {
		return nil, errors.New("it hands calls to a listener, which Confine can't reason about")
	}
	p := d.Profile
	for i, r := range d.Syscalls {
		if !empty(r.Includes) || !empty(r.Excludes) {
			return nil, fmt.Errorf("rule %d (%s) has includes or excludes, so that it depends on the machine; write it flat", i, first(r.Names, r.Name))
		}
		rule := r.Rule
		if r.Name != "" {
			rule.Names = append(rule.Names, r.Name)
		}
		p.Syscalls = append(p.Syscalls, rule)
	}
	return &p, nil
}

// empty is true for what Docker writes when it means nothing.
func empty(raw json.RawMessage) bool {
	return slices.Contains([]string{"", "null", "{}", "[]"}, string(bytes.TrimSpace(raw)))
}

func first(names []string, name string) string {
	if len(names) > 0 {
		return names[0]
	}
	return name
}

func (p *Profile) check() error {
	if err := p.DefaultAction.check(); err != nil {
		return fmt.Errorf("defaultAction: %w", err)
	}
	if err := checkErrno(p.DefaultErrnoRet); err != nil {
		return fmt.Errorf("defaultErrnoRet: %w", err)
	}
	if len(p.Architectures) == 0 {
		return errors.New("it names no architectures")
	}
	for _, a := range p.Architectures {
		if _, ok := archTable(a); !ok {
			return fmt.Errorf("architecture %q is unknown", a)
		}
	}
	for i, r := range p.Syscalls {
		if err := p.checkRule(r); err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
	}
	return nil
}

func (p *Profile) checkRule(r Rule) error {
	if len(r.Names) == 0 {
		return errors.New("it names no calls")
	}
	for _, name := range r.Names {
		if !p.knows(name) {
			return fmt.Errorf("%v have no system call %q", p.Architectures, name)
		}
	}
	if err := r.Action.check(); err != nil {
		return err
	}
	if err := checkErrno(r.ErrnoRet); err != nil {
		return err
	}
	seen := map[uint]bool{}
	for _, c := range r.Args {
		if err := c.check(); err != nil {
			return err
		}
		if seen[c.Index] {
			return fmt.Errorf("argument %d has two conditions in one rule, which runtimes read differently; use two rules", c.Index)
		}
		seen[c.Index] = true
	}
	return nil
}

func (a Action) check() error {
	switch a {
	case ActAllow, ActErrno, ActLog, ActTrap, ActKill, ActKillThread, ActKillProcess:
		return nil
	}
	return fmt.Errorf("action %q is unknown", a)
}

// maxErrno is MAX_ERRNO of the kernel.
const maxErrno = 4095

func checkErrno(v *uint) error {
	if v != nil && *v > maxErrno {
		return fmt.Errorf("errno %d is more than %d", *v, maxErrno)
	}
	return nil
}

func (c Condition) check() error {
	if c.Index > 5 {
		return fmt.Errorf("argument %d: calls have arguments 0 to 5", c.Index)
	}
	switch c.Op {
	case NotEqual, Less, LessEqual, Equal, GreaterEqual, Greater, MaskedEqual:
		return nil
	}
	return fmt.Errorf("operator %q is unknown", c.Op)
}

// JSON is the written form, indented, with a line feed at its end.
func (p *Profile) JSON() ([]byte, error) {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write profile: %w", err)
	}
	return append(data, '\n'), nil
}
