package floor

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// A damaged file is as good as none: the floor is measured again.
func TestStoreDamaged(t *testing.T) {
	s, k := NewStore(t.TempDir()), Key{Runtime: "a", Arch: "amd64"}
	for _, text := range []string{"", "{", `{"Key":{"Runtime":"b"},"Calls":[1]}`, `{"Key":{"Runtime":"a","Arch":"amd64"},"Calls":[-1]}`, `{"Key":{"Runtime":"a","Arch":"amd64"},"Calls":[99999]}`} {
		if err := os.WriteFile(s.path(k), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if calls, ok := s.Get(k); ok {
			t.Errorf("%q: calls %v", text, calls)
		}
		got, err := s.Do(k, false, func() ([]int32, error) { return []int32{1, 2}, nil })
		if err != nil || !slices.Equal(got, []int32{1, 2}) {
			t.Errorf("%q: measured %v, %v", text, got, err)
		}
	}
	if calls, ok := s.Get(k); !ok || !slices.Equal(calls, []int32{1, 2}) {
		t.Errorf("kept %v, %v", calls, ok)
	}
}

func FuzzStore(f *testing.F) {
	k := Key{Runtime: "a", NoNewPrivs: true, Kernel: "6.1", Arch: "amd64"}
	good, err := json.Marshal(entry{Key: k, Calls: []int32{3, 1, 3}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"Calls":[4096]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		calls, ok := decode(raw, k)
		if !ok {
			return
		}
		if len(calls) == 0 || !slices.IsSorted(calls) || calls[0] < 0 || calls[len(calls)-1] > lastCall {
			t.Errorf("calls %v", calls)
		}
	})
}
