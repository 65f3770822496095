package agent

import (
	"slices"
	"strings"
	"testing"
)

func TestExecutableMappings(t *testing.T) {
	const maps = `563f65a9f000-563f65aa1000 r--p 00000000 fe:00 393250                     /usr/bin/a
563f65aa1000-563f65aa5000 r-xp 00002000 fe:00 393250                     /usr/bin/a
563f65aa5000-563f65aa6000 r-xp 00006000 fe:00 393250                     /usr/bin/a
563f66e1e000-563f66e3f000 rw-p 00000000 00:00 0                          [heap]
7f2a0d600000-7f2a0d601000 rwxp 00000000 00:00 0 
7f2a0d800000-7f2a0d801000 r-xp 00000000 00:1c 12                         /lib/with  two blanks.so
7f2a0d900000-7f2a0d901000 r-xp 00000000 00:1c 13                         /lib/gone.so (deleted)
7f2a0da00000-7f2a0da01000 r-xs 00000000 00:01 14                         /memfd:jit (deleted)
7ffd1b5d9000-7ffd1b5db000 r-xp 00000000 00:00 0                          [vdso]
`
	want := []string{"/usr/bin/a", "/lib/with  two blanks.so", "/lib/gone.so (deleted)", "/memfd:jit (deleted)"}
	if got := executableMappings(strings.NewReader(maps)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
