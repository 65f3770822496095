package link

import (
	"encoding/binary"
	"os"
	"path"
	"strings"
	"testing"
)

// makeCache writes a cache of the present format; pairs are names and paths.
func makeCache(pairs ...string) []byte {
	n := len(pairs) / 2
	head := append([]byte("glibc-ld.so.cache1.1"), make([]byte, 28)...)
	le := binary.LittleEndian
	le.PutUint32(head[20:], uint32(n))
	names := []byte{}
	for i := range n {
		e := make([]byte, 24)
		for k := range 2 {
			le.PutUint32(e[4+4*k:], uint32(48+24*n+len(names)))
			names = append(append(names, pairs[2*i+k]...), 0)
		}
		head = append(head, e...)
	}
	return append(head, names...)
}

func TestParseCache(t *testing.T) {
	one := makeCache("liba.so", "/lib/liba.so", "libb.so", "/b", "liba.so", "/usr/lib/liba.so", "librel.so", "rel", "", "/empty")
	m := ParseCache(one)
	if got := strings.Join(m["liba.so"], " "); got != "/lib/liba.so /usr/lib/liba.so" || len(m) != 2 {
		t.Errorf("%v", m)
	}
	old := append([]byte("ld.so-1.7.0\x00"), 1, 0, 0, 0)
	old = append(old, make([]byte, 12)...) // one entry
	old = append(old, make([]byte, (8-len(old)%8)%8)...)
	if m := ParseCache(append(old, makeCache("libc.so", "/lib/libc.so")...)); len(m["libc.so"]) != 1 {
		t.Errorf("behind an old table: %v", m)
	}
	for n := range one {
		ParseCache(one[:n])
	}
	for _, s := range []string{"", "glibc", "ld.so-1.7.0\x00\xff\xff\xff\xff", string(one[:48])} {
		if m := ParseCache([]byte(s)); len(m) != 0 {
			t.Errorf("%q: %v", s, m)
		}
	}
}

// TestParseCacheOfMachine wants a library that every program needs.
func TestParseCacheOfMachine(t *testing.T) {
	b, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Skip("this machine has no loader cache: ", err)
	}
	m := ParseCache(b)
	if len(m["libc.so.6"]) == 0 {
		t.Errorf("no libc.so.6 among %d names", len(m))
	}
	for name, list := range m {
		for _, p := range list {
			if path.Base(p) != name {
				t.Errorf("%s is %s", name, p)
			}
		}
	}
}

func FuzzParseCache(f *testing.F) {
	f.Add([]byte{})
	f.Add(makeCache("liba.so", "/lib/liba.so", "libb.so", "/b"))
	f.Add(append([]byte("ld.so-1.7.0\x00\x00\x00\x00\x00"), makeCache("a", "/a")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for name, list := range ParseCache(b) {
			n += len(list)
			for _, p := range list {
				if name == "" || !path.IsAbs(p) || strings.Contains(name+p, "\x00") {
					t.Errorf("%q: %q", name, p)
				}
			}
		}
		if n > len(b)/24 {
			t.Errorf("%d entries in %d bytes", n, len(b))
		}
	})
}
