package procfs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestMappings(t *testing.T) {
	const maps = `00400000-00402000 r--p 00000000 fe:00 393250                     /usr/bin/a
563f65aa1000-563f65aa5000 r-xp 00002000 fe:00 393250                     /usr/bin/a
563f66e1e000-563f66e3f000 rw-p 00000000 00:00 0                          [heap]
7f2a0d600000-7f2a0d601000 rwxp 00000000 00:00 0 
7f2a0d800000-7f2a0d801000 r-xp 00000000 00:1c 12                         /lib/with  two blanks.so
7f2a0d900000-7f2a0d901000 r-xs 00000000 08:01 13                         /lib/a\012b (deleted)
no mapping
`
	want := []Mapping{
		{0x400000, 0x402000, 0, false, 0xfe, 0, 393250, "/usr/bin/a"},
		{0x563f65aa1000, 0x563f65aa5000, 0x2000, true, 0xfe, 0, 393250, "/usr/bin/a"},
		{0x563f66e1e000, 0x563f66e3f000, 0, false, 0, 0, 0, "[heap]"},
		{0x7f2a0d600000, 0x7f2a0d601000, 0, true, 0, 0, 0, ""},
		{0x7f2a0d800000, 0x7f2a0d801000, 0, true, 0, 0x1c, 12, "/lib/with  two blanks.so"},
		{0x7f2a0d900000, 0x7f2a0d901000, 0, true, 8, 1, 13, "/lib/a\nb (deleted)"},
	}
	if got := want[0].MapFile(); got != "400000-402000" {
		t.Errorf("map file %s, want no zeros before", got)
	}
	if got := slices.Collect(Mappings(strings.NewReader(maps))); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// FuzzMappings has the kernel's format hold any name that a file can have.
func FuzzMappings(f *testing.F) {
	f.Add("/usr/bin/a", uint64(1), uint32(8))
	f.Add("/with\nnewline and\rreturn \r", uint64(2), uint32(0xfffff))
	f.Add("/ (deleted)", uint64(0), uint32(0))
	f.Fuzz(func(t *testing.T, name string, inode uint64, device uint32) {
		for m := range Mappings(strings.NewReader(name)) { // no such format
			if strings.Contains(m.Name, "\\012") {
				t.Errorf("%+v", m)
			}
		}
		if !strings.HasPrefix(name, "/") || strings.Contains(name, `\012`) || len(name) > 4096 {
			return
		}
		want := Mapping{0x1000, 0x2000, 0x3000, true, device >> 20, device & 0xfffff, inode, name}
		line := fmt.Sprintf("1000-2000 r-xp 00003000 %02x:%02x %d %s\n", want.Major, want.Minor, inode, strings.ReplaceAll(name, "\n", `\012`))
		if got := slices.Collect(Mappings(strings.NewReader(line + line))); !slices.Equal(got, []Mapping{want, want}) {
			t.Errorf("%q: got %+v, want %+v twice", line, got, want)
		}
	})
}
