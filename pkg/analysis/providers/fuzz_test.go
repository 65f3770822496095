package providers

import (
	"context"
	"testing"
)

// text is a root whose files all have the same content.
type text []byte

func (t text) Read(context.Context, string) []byte          { return t }
func (t text) Dir(context.Context, string, string) []string { return []string{"a", "b.conf"} }

// FuzzConfigurations reads anything as each kind of configuration: nothing may
// panic or go on for ever, and names are never empty.
func FuzzConfigurations(f *testing.F) {
	f.Add([]byte("passwd: files [NOTFOUND=return] x\n@include a\nauth [a=b c] m.so x\n[s]\nproviders=s\n.include a\nmodule A// INTERNAL B 1\nalias C// A//\n"))
	f.Add([]byte("auth [a\nauth include\n\\\n\\"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := New(nil, text(b))
		ctx := t.Context()
		for _, s := range r.nss(ctx) {
			if s.Prefix == "_nss__" {
				t.Errorf("a name service without a name in %q", b)
			}
		}
		r.pamModules(ctx, "/etc/pam.d", nil)
		r.pamModules(ctx, "/etc/pam.conf", []string{"a"})
		for _, s := range r.modules(ctx, "/gconv", []string{"A"}, len(b)%2 == 0) {
			if s.Library == "/gconv/.so" {
				t.Errorf("a module without a name in %q", b)
			}
		}
		s := sections{r, ctx, map[string]map[string]string{}, 0}
		s.read("/openssl.cnf", "default")
		s.modules()
	})
}
