package remote

import (
	"path"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// FuzzAnswer checks what a node says about a path: what is believed can't lead
// out of its root, nor name what it doesn't hold.
func FuzzAnswer(f *testing.F) {
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, a := range []*confinev1.LookupEntry{
		{Path: "/a", Resolved: "/b", Type: "file", Sha256: empty},
		{Path: "/a", Resolved: "/../b", Type: "file", Sha256: empty},
		{Path: "/a", Resolved: "/a", Type: "file", Sha256: empty, Size: 1 << 63, Content: []byte("x")},
		{Path: "/a", Resolved: "/", Type: "dir", Names: []string{"b", "a", ".."}},
		{Path: "/a", Resolved: "/a", Type: "other", Error: "no"},
		{Path: "/a", Error: "no"}, {Path: "/x"}, {Path: "/a", Type: "dir"},
	} {
		raw, err := proto.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a := &confinev1.LookupEntry{}
		if proto.Unmarshal(raw, a) != nil {
			return
		}
		e, err := check(a.GetPath(), a)
		if err != nil || e.err != nil {
			return
		}
		if p := e.found.Path; !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.Contains(p, "..") && strings.Contains(p, "/../") {
			t.Errorf("believed the path %q", p)
		}
		if e.found.Size < 0 || e.inline && int64(len(e.content)) != e.found.Size {
			t.Errorf("believed a size of %d, with %d bytes of content", e.found.Size, len(e.content))
		}
		for _, n := range e.names {
			if n == ".." || strings.Contains(n, "/") {
				t.Errorf("believed the name %q", n)
			}
		}
	})
}
