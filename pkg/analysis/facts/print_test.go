package facts

import (
	"strings"
	"testing"
)

// TestPrint has every kind of fact printed.
func TestPrint(t *testing.T) {
	var b strings.Builder
	if err := sample().Print(&b, "/lib/x.so", false); err != nil {
		t.Fatal(err)
	}
	if b.String() != wantPrinted {
		t.Errorf("printed:\n%s\nwant:\n%s", &b, wantPrinted)
	}
}

const wantPrinted = `object /lib/x.so [go pie nodeflib]
  machine X86_64, 8589934592 bytes
  interpreter /lib/ld.so
  soname x.so
  path /a $ORIGIN
  needed libc.so.6 x.so
  warning unreadable
  import g
import f@V1 [weak]
  parameter rdx: 0x1 0x7
  parameter rsi: 0x0
import g [copy own]
  is 0x1000 main
export a@V2 [hidden ifunc]
  is 0x1000 main
export b
  is 0x2000 .data
region 0x2000-0x2010 .data [root]
  ref 0x1010 f
  import-ref f
  data 0x3000 .bss
  text "libm.so.6"
region 0x3000-0x3000 .bss
function 0x1000-0x1010 main [entry held]
  table 0x1000 main
  call 0x1010 f
  import f
  import-ref g
function 0x1010-0x1100 f [computed-jump calls-from-table root held]
  data 0x2000 .data
  data 0x3000 .bss
  text "/bin/sh"
  site 0x1020 syscall numbers -1 0 60 from rdi, r17 [behind-pointer takers-known in-exported-variable]
  site 0x1100 int80 via 0x1000 main any: the number is computed
  site 0x1011 syscall numbers 72 argument 1: 0x3 0x80000000 0xffffffff from rsi from r19 argument 4: from rax
  passes to call 0x1010 f: rdi: 0x0
  passes to import f: rsi: from rdx, r17: 0x5
`
