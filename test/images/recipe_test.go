package images

import "testing"

func TestRecipesAreSound(t *testing.T) {
	names, err := Names()
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Fatal("no recipe is embedded")
	}
	refs := map[string]string{}
	for _, name := range names {
		r, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if other := refs[r.Name]; other != "" {
			t.Errorf("recipes %s and %s have the same name %s", name, other, r.Name)
		}
		refs[r.Name] = name
	}
	if _, err := Load("nonesuch"); err == nil {
		t.Error("loading an unknown recipe succeeds")
	}
}

func TestLeaves(t *testing.T) {
	r := Recipe{Drop: []string{"usr/bin/*", "usr/share/perl*"}, Keep: []string{"usr/bin/true"}}
	for name, want := range map[string]bool{
		"usr/bin":                 false,
		"usr/bin/sh":              true,
		"usr/bin/true":            false,
		"usr/bin/a/b":             true,
		"usr/share/perl5/x/y.pm":  true,
		"usr/share/other/perl.pm": false,
		"bin/sh":                  false,
	} {
		if got := r.leaves(name); got != want {
			t.Errorf("leaves(%q) = %t, want %t", name, got, want)
		}
	}
}
