package facts

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestHostileCode reads code that is made to be interpreted for long: what may
// be spent on an object bounds it, and what isn't known then is unresolved.
func TestHostileCode(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed")
	}
	for name, text := range map[string]string{
		"thousands of stack slots at thousands of joins": `
	sub $65536, %rsp
	i = 0
	.rept 4000
	mov $i, %eax
	mov %rax, i*8(%rsp)
	i = i + 1
	.endr
	.rept 20000
	test %rdi, %rdi
	je 1f
	mov %rdi, 8(%rsp)
1:
	.endr
	.rept 500
	mov 16(%rsp), %rax
	syscall
	.endr
	hlt`,
		"one variable, written and used all over": `
	.rept 30000
	mov v(%rip), %eax
	syscall
	mov %eax, v(%rip)
	.endr
	hlt
	.bss
v:	.quad 0`,
		"many variables": `
	i = 0
	.rept 10000
	mov v+i*8(%rip), %eax
	syscall
	mov %eax, v+i*8+8(%rip)
	i = i + 1
	.endr
	hlt
	.bss
v:	.space 100000`,
		"loops into loops": `
	.rept 5000
1:	add $1, %rax
	dec %rbx
	jne 1b
	jmp 2f
2:	loop 1b
	.endr
	syscall
	hlt`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := filepath.Join(t.TempDir(), "a.s")
			if err := os.WriteFile(src, []byte("\t.globl _start\n_start:\t.cfi_startproc\n"+text+"\n\t.text\n\t.cfi_endproc\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			exe := src + ".exe"
			if msg, err := exec.Command("gcc", "-static", "-nostdlib", src, "-o", exe).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, msg)
			}
			data, err := os.ReadFile(exe)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			o, err := Extract(ctx, data)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range o.Facts.Invariants() {
				t.Error(w)
			}
			unresolved := false
			for _, f := range o.Facts.Funcs {
				for _, s := range f.Sites {
					unresolved = unresolved || s.Unresolved != ""
				}
			}
			if !unresolved && name != "thousands of stack slots at thousands of joins" {
				t.Error("every number is said to be known")
			}
		})
	}
}
