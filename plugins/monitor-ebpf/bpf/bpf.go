// Package bpf holds the programs that the monitor loads into the kernel, in
// source and compiled, and the shape of what they send.
//
// The compiled objects are committed: building the monitor needs no clang.
package bpf

//go:generate go tool -modfile=../../../tools/go.mod bpf2go -cc clang -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target amd64,arm64 -type event -type place -type denial -type made -type key -type seed Monitor monitor.bpf.c -- -I/usr/include/x86_64-linux-gnu
//go:generate sh -c "LC_ALL=C sha256sum -- *.c *.h bpf.go *_bpfel.go *_bpfel.o >compiled.sha256"
