package seccomp_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/confinehq/confine/pkg/seccomp"
	"github.com/confinehq/confine/pkg/syscalls"
)

// low is the condition that the lower half of an argument is v.
func low(index uint, v uint64) seccomp.Condition {
	return seccomp.Condition{Index: index, Op: seccomp.MaskedEqual, Value: 0xffffffff, ValueTwo: v}
}

func compile(t *testing.T, p *seccomp.Profile) *seccomp.Program {
	t.Helper()
	program, err := seccomp.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func allows(t *testing.T, program *seccomp.Program, name string, args ...uint64) bool {
	t.Helper()
	nr, ok := syscalls.Number(syscalls.AMD64, name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	out, err := program.Run(syscalls.AMD64, nr, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out == allow
}

// TestFewerRules builds calls with random values and checks that the profile
// allows exactly those: it writes them with fewer conditions than there are
// values.
func TestFewerRules(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	fewer := 0
	for range 300 {
		var want [3]map[uint64]bool
		call := seccomp.Call{Name: "socket"}
		for i := range want {
			want[i] = map[uint64]bool{}
			for range 1 + r.IntN(4) {
				v := uint64(r.IntN(8)) | uint64(r.IntN(4))<<18
				want[i][v] = true
				call.Args = append(call.Args, low(uint(i), v))
			}
		}
		p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: []seccomp.Call{call}})
		if len(p.Syscalls) < len(want[0])*len(want[1])*len(want[2]) {
			fewer++
		}
		program := compile(t, p)
		for range 200 {
			var args [3]uint64
			holds := true
			for i := range args {
				args[i] = uint64(r.IntN(8)) | uint64(r.IntN(4))<<18
				holds = holds && want[i][args[i]]
				args[i] |= uint64(r.IntN(3)) << 32 // what callers leave there
			}
			if got := allows(t, program, "socket", args[:]...); got != holds {
				t.Fatalf("socket%#x is allowed: %v; conditions %+v, rules %+v", args, got, call.Args, p.Syscalls)
			}
		}
	}
	if fewer == 0 {
		t.Error("no profile got fewer rules than there are combinations")
	}
}

// TestMergeIsUnion checks that a merged profile allows what either of two
// does, and no more as long as it holds all conditions.
func TestMergeIsUnion(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	random := func() *seccomp.Profile {
		var list []seccomp.Call
		for _, name := range []string{"fcntl", "ioctl", "socket"} {
			switch r.IntN(4) {
			case 0:
			case 1:
				list = append(list, seccomp.Call{Name: name})
			default:
				c := seccomp.Call{Name: name}
				for range 1 + r.IntN(3) {
					c.Args = append(c.Args, low(uint(1), uint64(r.IntN(6))))
				}
				if r.IntN(2) == 0 {
					c.Args = append(c.Args, low(0, uint64(r.IntN(3))))
				}
				list = append(list, c)
			}
		}
		return build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: list})
	}
	for range 200 {
		a, b := random(), random()
		m, err := seccomp.Merge(a, b)
		if err != nil {
			t.Fatal(err)
		}
		pa, pb, pm := compile(t, a), compile(t, b), compile(t, m)
		for _, name := range []string{"fcntl", "ioctl", "socket"} {
			for x := range uint64(4) {
				for y := range uint64(7) {
					want := allows(t, pa, name, x, y) || allows(t, pb, name, x, y)
					if got := allows(t, pm, name, x, y); got != want {
						t.Fatalf("%s(%d, %d) is allowed: %v, want %v\n%+v\n%+v\n%+v", name, x, y, got, want, a.Syscalls, b.Syscalls, m.Syscalls)
					}
				}
			}
		}
	}
}

// TestManyConditions checks that a profile with more conditions than a filter
// can hold frees calls, and allows all that it should.
func TestManyConditions(t *testing.T) {
	var list []seccomp.Call
	for i, name := range []string{"fcntl", "ioctl", "prctl", "madvise", "mmap", "mprotect", "socket", "setsockopt", "openat", "lseek"} {
		c := seccomp.Call{Name: name}
		for v := range uint64(40 + i) {
			c.Args = append(c.Args, low(2, v*v*7+v)) // hardly two differ in one bit
		}
		list = append(list, c)
	}
	p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: list})
	program := compile(t, p)
	for i, c := range list {
		for v := range uint64(40 + i) {
			if !allows(t, program, c.Name, 0, 0, v*v*7+v) {
				t.Fatalf("%s with %d isn't allowed", c.Name, v*v*7+v)
			}
		}
	}
	narrowed := p.Narrowed()
	if len(narrowed) == 0 || len(narrowed) == len(list) {
		t.Errorf("narrowed are %v", narrowed)
	}
	for _, c := range list {
		if slices.Contains(narrowed, c.Name) && allows(t, program, c.Name, 0, 0, 5) {
			t.Errorf("%s is said to be narrowed and allows everything", c.Name)
		}
	}
}

func TestWithoutArgs(t *testing.T) {
	p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: append(calls("read", "clone"), seccomp.Call{Name: "fcntl", Args: []seccomp.Condition{low(1, 3), low(1, 4)}})})
	if got := fmt.Sprint(p.Narrowed()); got != "[fcntl]" {
		t.Errorf("narrowed are %s", got)
	}
	free := p.WithoutArgs()
	if len(free.Narrowed()) != 0 || !slices.Equal(free.Allowed(), p.Allowed()) {
		t.Errorf("without conditions: %+v", free)
	}
	for name, want := range map[string]seccomp.Outcome{"fcntl": allow, "read": allow, "clone3": enosys, "ptrace": eperm} {
		if got := ask(t, free, syscalls.AMD64, name, 0, 9); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
