package x86

import "testing"

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "\x0f\x05", "\xb8\x3c\x00\x00\x00", "\x48\x8b\x05\x10\x00\x00\x00", "\xff\x25\x00\x00\x00\x00",
		"\xf3\x0f\x1e\xfa", "\x64\x48\x8b\x04\x25\x28\x00\x00\x00", "\x66\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00",
		"\x48\xb8\x01\x02\x03\x04\x05\x06\x07\x08", "\xc5\xf8\x77", "\xc4\xe2\x79\x18\x05\x00\x00\x00\x00",
		"\x62\xf1\x7c\x48\x28\x05\x00\x00\x00\x00", "\x8f\xe9\x78\x81\xc0", "\xf6\x05\x00\x00\x00\x00\x01",
		"\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90", "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90",
		"\xc8\x00\x00\x00", "\xa1\x00\x00\x00\x00\x00\x00\x00\x00", "\x67\xa1\x00\x00\x00\x00", "\x0f\x38\xf0\x00", "\x0f\x3a\x0f\xc0\x08",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		var in, again Inst
		n := Decode(code, &in)
		if n < 0 || n > 15 || n > len(code) || n != int(in.Len) && n > 0 {
			t.Fatalf("% x: length %d of %d, Len %d", code, n, len(code), in.Len)
		}
		if n == 0 {
			return
		}
		for _, r := range []uint8{in.Reg, in.RM} {
			if r > 15 {
				t.Errorf("% x: register %d", code[:n], r)
			}
		}
		for _, r := range []uint8{in.Base, in.Index} {
			if r > 15 && r != None {
				t.Errorf("% x: address register %d", code[:n], r)
			}
		}
		if int(in.DispOff) >= n {
			t.Errorf("% x: displacement at %d", code[:n], in.DispOff)
		}
		// Nothing behind an instruction changes it, and no shorter part of it
		// is one.
		if m := Decode(append(code[:n:n], 0xcc), &again); m != n || again != in {
			t.Errorf("% x: %+v, and %+v with another byte behind it", code[:n], in, again)
		}
		if m := Decode(code[:n-1], &again); m != 0 {
			t.Errorf("% x: its first %d bytes are an instruction of %d", code[:n], n-1, m)
		}
	})
}
