package seccomp

import (
	"fmt"
	"slices"
)

// Merge returns a profile that allows what any of two allow lists allows. A
// call that one of them answers with an errno of its own keeps that answer
// unless the other allows the call.
func Merge(a, b *Profile) (*Profile, error) {
	for _, p := range []*Profile{a, b} {
		if err := p.mergeable(); err != nil {
			return nil, fmt.Errorf("merge profiles: %w", err)
		}
	}
	if errnoOf(a.DefaultErrnoRet) != errnoOf(b.DefaultErrnoRet) {
		return nil, fmt.Errorf("merge profiles: refused calls get errno %d in one and %d in the other", errnoOf(a.DefaultErrnoRet), errnoOf(b.DefaultErrnoRet))
	}
	out := &Profile{
		DefaultAction: ActErrno, DefaultErrnoRet: pointer(errnoOf(a.DefaultErrnoRet)),
		Architectures: union(a.Architectures, b.Architectures),
		Flags:         union(a.Flags, b.Flags),
	}
	rules := append(slices.Clone(a.Syscalls), b.Syscalls...)
	var calls []Call
	allowed := map[string]bool{}
	for _, r := range rules {
		if r.Action != ActAllow {
			continue
		}
		for _, name := range r.Names {
			allowed[name] = true
			calls = append(calls, Call{Name: name, Args: r.Args})
		}
	}
	out.Syscalls = append(allowRules(calls), errnoRules(rules, allowed)...)
	return out, nil
}

// mergeable refuses what isn't an allow list.
func (p *Profile) mergeable() error {
	if p.DefaultAction != ActErrno {
		return fmt.Errorf("one has default action %s, want %s", p.DefaultAction, ActErrno)
	}
	for _, r := range p.Syscalls {
		if r.Action != ActAllow && (r.Action != ActErrno || len(r.Args) > 0) {
			return fmt.Errorf("%s has action %s; only allowing, and refusing without conditions, can be merged", r.Names[0], r.Action)
		}
	}
	return nil
}

// errnoRules keeps the answers of refused calls, one rule for each errno. Of
// two answers ENOSYS wins: it lets a program go on.
func errnoRules(rules []Rule, allowed map[string]bool) []Rule {
	answers := map[string]uint{}
	for _, r := range rules {
		if r.Action != ActErrno {
			continue
		}
		for _, name := range r.Names {
			if _, ok := answers[name]; !allowed[name] && (!ok || errnoOf(r.ErrnoRet) == ENOSYS) {
				answers[name] = errnoOf(r.ErrnoRet)
			}
		}
	}
	byErrno := map[uint][]string{}
	for _, name := range sortedKeys(answers) {
		byErrno[answers[name]] = append(byErrno[answers[name]], name)
	}
	var out []Rule
	for errno, names := range byErrno {
		out = append(out, Rule{Names: names, Action: ActErrno, ErrnoRet: pointer(errno)})
	}
	slices.SortFunc(out, func(a, b Rule) int { return int(*a.ErrnoRet) - int(*b.ErrnoRet) })
	return out
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
