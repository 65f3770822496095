package arm64

import "testing"

func FuzzDecode(f *testing.F) {
	for _, w := range []uint32{0, 0xd4000001, 0xd2800008, 0x14000000, 0x94000001, 0xd65f03c0, 0xd61f0220, 0xf9400231, 0xb0000010, 0xd503245f, 0x4ea01c00, 0x04a0e3e0, 0xffffffff} {
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, w uint32) {
		var in, again Inst
		if !Decode(w, &in) {
			return
		}
		in.Writes()
		// What was in the place before doesn't matter.
		again = Inst{Op: in.Op + 1, Imm: 7}
		if !Decode(w, &again) || again != in {
			t.Errorf("%#x: %+v, and %+v over another one", w, in, again)
		}
	})
}
