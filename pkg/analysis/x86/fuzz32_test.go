package x86

import "testing"

func FuzzDecode32(f *testing.F) {
	for _, s := range []string{
		"", "\xcd\x80", "\xb8\x3c\x00\x00\x00", "\x65\xff\x15\x10\x00\x00\x00", "\x8b\x83\xfc\xff\xff\xff", "\x40", "\x60",
		"\xf3\x0f\x1e\xfb", "\xa1\x00\x00\x00\x00", "\x67\xa1\x00\x00", "\x67\x8b\x46\x10", "\x67\x8b\x06\x10\x00", "\x66\xe8\x00\x00",
		"\x9a\x00\x00\x00\x00\x23\x00", "\x66\xea\x00\x00\x23\x00", "\xc5\xf8\x77", "\xc5\x06", "\xc4\xe2\x79\x18\x05\x00\x00\x00\x00", "\xc4\x01",
		"\x62\xf1\x7c\x48\x28\x05\x00\x00\x00\x00", "\x62\x01", "\x8f\xe9\x78\x81\xc0", "\x82\xc0\x01", "\xd4\x0a", "\xc8\x00\x00\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		var in, again Inst
		n := Decode32(code, &in)
		if n < 0 || n > 15 || n > len(code) || n != int(in.Len) && n > 0 {
			t.Fatalf("% x: length %d of %d, Len %d", code, n, len(code), in.Len)
		}
		if n == 0 {
			return
		}
		if in.Rex != 0 || in.RIPRel || in.OpSize == 8 {
			t.Errorf("% x: %+v, which 32-bit code doesn't have", code[:n], in)
		}
		for _, r := range []uint8{in.Reg, in.RM} {
			if r > 7 && !in.Vector {
				t.Errorf("% x: register %d", code[:n], r)
			}
		}
		for _, r := range []uint8{in.Base, in.Index} {
			if r > 7 && r != None {
				t.Errorf("% x: address register %d", code[:n], r)
			}
		}
		if m := Decode32(append(code[:n:n], 0xcc), &again); m != n || again != in {
			t.Errorf("% x: %+v, and %+v with another byte behind it", code[:n], in, again)
		}
		if m := Decode32(code[:n-1], &again); m != 0 {
			t.Errorf("% x: its first %d bytes are an instruction of %d", code[:n], n-1, m)
		}
	})
}
