package explain

import (
	"fmt"
	"strings"
	"testing"
)

// doubling is a symbol each of whose types has the one before twice: written
// out, its name has some two to the power of n bytes.
func doubling(n int) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var s strings.Builder
	s.WriteString("_Z1fI1AIiiE")
	for i := range n {
		before := fmt.Sprintf("S%c%c_", digits[(i+1)/36], digits[(i+1)%36])
		if i+1 < 36 {
			before = fmt.Sprintf("S%c_", digits[i+1])
		}
		s.WriteString("S0_I" + before + before + "E")
	}
	s.WriteString("Evv")
	return s.String()
}

func TestDemangleIsBounded(t *testing.T) {
	if got, want := Demangle(doubling(1)), "f<A<int, int>, A<A<int, int>, A<int, int>>>"; !strings.Contains(got, want) {
		t.Fatalf("%q isn't %q: the symbol isn't what the test takes it for", got, want)
	}
	for _, n := range []int{10, 40, 60} { // 60: 2^60 bytes
		if got := Demangle(doubling(n)); len(got) == 0 || len(got) > 1<<longestName {
			t.Errorf("%d levels: a name of %d bytes", n, len(got))
		}
	}
}

func FuzzDemangle(f *testing.F) {
	for _, s := range []string{"", "main", "_ZNKSt6vectorIiE3endEv", "_RNvC5crate4main", "_ZN4core3ptr17h0123456789abcdefE", doubling(5), doubling(60)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, symbol string) {
		if got := Demangle(symbol); len(got) > 1<<longestName {
			t.Errorf("%q: a name of %d bytes", symbol, len(got))
		}
	})
}
