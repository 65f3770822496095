package factsdir

import (
	"testing"
)

func TestDir(t *testing.T) {
	ctx := t.Context()
	d, err := Open(t.TempDir() + "/facts")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Get(ctx, "none"); got != nil || err != nil {
		t.Errorf("Get of an unknown key = %q, %v; want nil, nil", got, err)
	}
	for _, want := range []string{"one", "another"} {
		if err := d.Put(ctx, "v1.abc-0", []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Get(ctx, "v1.abc-0"); string(got) != want || err != nil {
			t.Errorf("Get = %q, %v; want %q", got, err, want)
		}
	}
	for _, key := range []string{"", "../up", "a/b", ".hidden", "UPPER"} {
		if err := d.Put(ctx, key, nil); err == nil {
			t.Errorf("Put(%q) went through", key)
		}
	}
}
