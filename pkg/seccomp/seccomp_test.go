package seccomp_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/confinehq/confine/pkg/seccomp"
	"github.com/confinehq/confine/pkg/syscalls"
)

var (
	allow  = seccomp.Outcome{Action: seccomp.ActAllow}
	eperm  = seccomp.Outcome{Action: seccomp.ActErrno, Errno: seccomp.EPERM}
	enosys = seccomp.Outcome{Action: seccomp.ActErrno, Errno: seccomp.ENOSYS}
	kill   = seccomp.Outcome{Action: seccomp.ActKillProcess}
)

func calls(names ...string) []seccomp.Call {
	var out []seccomp.Call
	for _, n := range names {
		out = append(out, seccomp.Call{Name: n})
	}
	return out
}

func build(t *testing.T, s seccomp.Spec) *seccomp.Profile {
	t.Helper()
	p, err := seccomp.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask compiles a profile and gives it one call.
func ask(t *testing.T, p *seccomp.Profile, arch syscalls.Arch, name string, args ...uint64) seccomp.Outcome {
	t.Helper()
	program, err := seccomp.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	nr, ok := syscalls.Number(arch, name)
	if !ok {
		t.Fatalf("%s has no %s", arch, name)
	}
	out, err := program.Run(arch, nr, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBuildAnswers(t *testing.T) {
	eq := func(index uint, v uint64) seccomp.Condition {
		return seccomp.Condition{Index: index, Op: seccomp.Equal, Value: v}
	}
	p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: append(calls("read", "clone", "close", "openat"),
		seccomp.Call{Name: "socket", Args: []seccomp.Condition{eq(0, 1), eq(0, 2), eq(1, 1)}},
		seccomp.Call{Name: "fcntl", Args: []seccomp.Condition{{Index: 1, Op: seccomp.MaskedEqual, Value: 0xffffffff, ValueTwo: 3}}},
		seccomp.Call{Name: "clone"},
		seccomp.Call{Name: "clone", Args: []seccomp.Condition{eq(0, 17)}},
	)})
	for _, c := range []struct {
		name string
		args []uint64
		want seccomp.Outcome
	}{
		{"read", nil, allow},
		{"write", nil, eperm},
		{"ptrace", nil, eperm},
		{"clone", []uint64{5}, allow}, // allowed once without conditions
		{"clone3", nil, enosys},       // clone is allowed
		{"close_range", nil, enosys},
		{"openat2", nil, enosys},
		{"faccessat2", nil, eperm}, // no older sibling is allowed
		{"socket", []uint64{1, 1}, allow},
		{"socket", []uint64{2, 1}, allow},
		{"socket", []uint64{3, 1}, eperm},
		{"socket", []uint64{1, 2}, eperm},
		{"socket", []uint64{1 << 32, 1}, eperm},
		{"fcntl", []uint64{0, 3}, allow},
		{"fcntl", []uint64{0, 0xdead0003 << 32}, eperm},
		{"fcntl", []uint64{0, 0xdead<<32 | 3}, allow},
		{"fcntl", []uint64{0, 4}, eperm},
	} {
		if got := ask(t, p, syscalls.AMD64, c.name, c.args...); got != c.want {
			t.Errorf("%s%v: %+v, want %+v", c.name, c.args, got, c.want)
		}
	}
	if got := ask(t, p, syscalls.I386, "read"); got != kill {
		t.Errorf("a 32-bit call: %+v, want %+v", got, kill)
	}
	program, err := seccomp.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := program.Run(syscalls.AMD64, 1<<30); got != kill {
		t.Errorf("an x32 call: %+v, want %+v", got, kill)
	}
	if got, _ := program.Run(syscalls.AMD64, -1); got != kill {
		t.Errorf("call -1: %+v, want %+v", got, kill)
	}
}

func TestCompat(t *testing.T) {
	p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Compat: true, Calls: calls("read", "socketcall")})
	for name, want := range map[string]seccomp.Outcome{"read": allow, "socketcall": allow, "write": eperm} {
		if got := ask(t, p, syscalls.I386, name); got != want {
			t.Errorf("32-bit %s: %+v, want %+v", name, got, want)
		}
	}
	if got := ask(t, p, syscalls.AMD64, "socket"); got != eperm {
		t.Errorf("socket: %+v, want %+v", got, eperm)
	}
	if _, err := seccomp.Build(seccomp.Spec{Arch: syscalls.ARM64, Compat: true}); err == nil {
		t.Error("arm64 with compat calls: no error")
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, s := range map[string]seccomp.Spec{
		"unknown call":         {Arch: syscalls.AMD64, Calls: calls("reed")},
		"call of another arch": {Arch: syscalls.AMD64, Calls: calls("socketcall")},
		"unknown architecture": {Arch: "vax", Calls: calls("read")},
		"argument 6":           {Arch: syscalls.AMD64, Calls: []seccomp.Call{{Name: "read", Args: []seccomp.Condition{{Index: 6, Op: seccomp.Equal}}}}},
		"unknown operator":     {Arch: syscalls.AMD64, Calls: []seccomp.Call{{Name: "read", Args: []seccomp.Condition{{Op: "=="}}}}},
	} {
		if p, err := seccomp.Build(s); err == nil {
			t.Errorf("%s: no error, %+v", name, p)
		}
	}
}

// TestWidening checks that what can't be written makes a call freer, never
// tighter.
func TestWidening(t *testing.T) {
	var many []seccomp.Condition
	for v := range uint64(100) {
		many = append(many, seccomp.Condition{Index: 2, Op: seccomp.Equal, Value: v})
	}
	one := seccomp.Condition{Index: 0, Op: seccomp.Equal, Value: 7}
	huge := seccomp.Condition{Index: 1, Op: seccomp.Equal, Value: 1<<63 + 1}
	p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: []seccomp.Call{
		{Name: "fcntl", Args: append(many, one)}, {Name: "ioctl", Args: []seccomp.Condition{huge}},
	}})
	if got := ask(t, p, syscalls.AMD64, "fcntl", 7, 0, 5000); got != allow {
		t.Errorf("fcntl with a free argument: %+v", got)
	}
	if got := ask(t, p, syscalls.AMD64, "fcntl", 8, 0, 5); got != eperm {
		t.Errorf("fcntl with a bound argument: %+v", got)
	}
	if got := ask(t, p, syscalls.AMD64, "ioctl", 0, 1); got != allow {
		t.Errorf("ioctl whose condition can't be written: %+v", got)
	}
}

// TestOperators compares the compiled form with plain arithmetic.
func TestOperators(t *testing.T) {
	values := []uint64{0, 1, 2, 0xffffffff, 1 << 32, 1<<32 + 1, 2 << 32, 3<<32 | 2, 1<<53 - 1}
	for op, holds := range map[seccomp.Op]func(a, v, two uint64) bool{
		seccomp.NotEqual:     func(a, v, _ uint64) bool { return a != v },
		seccomp.Less:         func(a, v, _ uint64) bool { return a < v },
		seccomp.LessEqual:    func(a, v, _ uint64) bool { return a <= v },
		seccomp.Equal:        func(a, v, _ uint64) bool { return a == v },
		seccomp.GreaterEqual: func(a, v, _ uint64) bool { return a >= v },
		seccomp.Greater:      func(a, v, _ uint64) bool { return a > v },
		seccomp.MaskedEqual:  func(a, v, two uint64) bool { return a&v == two },
	} {
		for _, v := range values {
			two := v & 0x1_0000_0003
			p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: []seccomp.Call{{Name: "prctl", Args: []seccomp.Condition{
				{Index: 5, Op: op, Value: v, ValueTwo: two},
				{Index: 0, Op: seccomp.Equal, Value: 9},
			}}}})
			for _, a := range append(values, 1<<63) {
				want := eperm
				if holds(a, v, two) {
					want = allow
				}
				if got := ask(t, p, syscalls.AMD64, "prctl", 9, 0, 0, 0, 0, a); got != want {
					t.Errorf("%#x %s %#x: %+v, want %+v", a, op, v, got, want)
				}
				if got := ask(t, p, syscalls.AMD64, "prctl", 8, 0, 0, 0, 0, a); got != eperm {
					t.Errorf("other argument wrong: %+v", got)
				}
			}
		}
	}
}

func TestWrittenForm(t *testing.T) {
	p := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: calls("write", "read", "read", "close")})
	data, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "defaultAction": "SCMP_ACT_ERRNO",
  "defaultErrnoRet": 1,
  "architectures": [
    "SCMP_ARCH_X86_64"
  ],
  "syscalls": [
    {
      "names": [
        "close",
        "read",
        "write"
      ],
      "action": "SCMP_ACT_ALLOW"
    },
    {
      "names": [
        "close_range",
        "copy_file_range"
      ],
      "action": "SCMP_ACT_ERRNO",
      "errnoRet": 38
    }
  ]
}
`
	if string(data) != want {
		t.Errorf("got %s", data)
	}
	back, err := seccomp.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.JSON()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("read and written again: %v\n%s", err, again)
	}
	// The runtime's own type reads the same.
	var oci specs.LinuxSeccomp
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&oci); err != nil {
		t.Fatal(err)
	}
	if *oci.DefaultErrnoRet != 1 || *oci.Syscalls[1].ErrnoRet != 38 || len(oci.Architectures) != 1 {
		t.Errorf("the runtime reads %+v", oci)
	}
}

func TestReadRefuses(t *testing.T) {
	profile := func(rule string) string {
		return `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[` + rule + `]}`
	}
	for _, c := range []struct{ data, says string }{
		{"", "EOF"},
		{"{}", "defaultAction"},
		{`{"defaultAction":"SCMP_ACT_ERRNO"}`, "no architectures"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_VAX"]}`, "SCMP_ARCH_VAX"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`, "archMap"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000,"architectures":["SCMP_ARCH_X86_64"]}`, "errno 5000"},
		{profile(`{"names":["reed"],"action":"SCMP_ACT_ALLOW"}`), `"reed"`},
		{profile(`{"names":["socketcall"],"action":"SCMP_ACT_ALLOW"}`), `"socketcall"`},
		{profile(`{"names":[],"action":"SCMP_ACT_ALLOW"}`), "no calls"},
		{profile(`{"names":["read"],"action":"ALLOW"}`), `"ALLOW"`},
		{profile(`{"names":["read"],"action":"SCMP_ACT_ALLOW","arg":[]}`), "arg"},
		{profile(`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}`), "includes"},
		{profile(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ","value":1}]}`), "argument 6"},
		{profile(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"op":"SCMP_CMP_EQ","value":1},{"index":1,"op":"SCMP_CMP_EQ","value":2}]}`), "two conditions"},
		{profile("") + "{}", "more behind"},
	} {
		_, err := seccomp.Read([]byte(c.data))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Read(%s): %v, want an error that says %q", c.data, err, c.says)
		}
	}
	old := profile(`{"name":"read","action":"SCMP_ACT_ALLOW","includes":{},"excludes":null,"comment":"x"}`)
	if p, err := seccomp.Read([]byte(old)); err != nil || !slices.Equal(p.Allowed(), []string{"read"}) {
		t.Errorf("Docker's old form: %v, %v", p, err)
	}
}

func TestMerge(t *testing.T) {
	bound := func(v uint64) seccomp.Call {
		return seccomp.Call{Name: "socket", Args: []seccomp.Condition{{Index: 0, Op: seccomp.Equal, Value: v}}}
	}
	a := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: append(calls("read", "clone"), bound(1))})
	b := build(t, seccomp.Spec{Arch: syscalls.AMD64, Calls: append(calls("write", "clone3", "openat"), bound(2))})
	m, err := seccomp.Merge(a, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []uint64
		want seccomp.Outcome
	}{
		{"read", nil, allow}, {"write", nil, allow}, {"clone3", nil, allow}, {"openat2", nil, enosys},
		{"socket", []uint64{1}, allow}, {"socket", []uint64{2}, allow}, {"socket", []uint64{3}, eperm}, {"ptrace", nil, eperm},
	} {
		if got := ask(t, m, syscalls.AMD64, c.name, c.args...); got != c.want {
			t.Errorf("merged: %s%v: %+v, want %+v", c.name, c.args, got, c.want)
		}
	}
	denyList := &seccomp.Profile{DefaultAction: seccomp.ActAllow, Architectures: []string{seccomp.ArchX8664}}
	if _, err := seccomp.Merge(a, denyList); err == nil {
		t.Error("merging with a deny list: no error")
	}
}

func TestSuccessorsExist(t *testing.T) {
	for _, s := range seccomp.Successors() {
		known := func(name string) bool {
			for _, arch := range []syscalls.Arch{syscalls.AMD64, syscalls.I386, syscalls.ARM64} {
				if _, ok := syscalls.Number(arch, name); ok {
					return true
				}
			}
			return false
		}
		for _, name := range append(s.Old, s.New) {
			if !known(name) {
				t.Errorf("no table has %q", name)
			}
		}
		if s.Source == "" || len(s.Old) == 0 {
			t.Errorf("%s: no source, or nothing to fall back to", s.New)
		}
	}
}

func TestKernelCalls(t *testing.T) {
	got := seccomp.KernelCalls([]string{"futex", "rt_sigaction"})
	if len(got) != 2 || got[0].Name != "restart_syscall" || got[1].Name != "rt_sigreturn" {
		t.Errorf("got %+v", got)
	}
	if got := seccomp.KernelCalls([]string{"futex", "restart_syscall", "read"}); len(got) != 0 {
		t.Errorf("got %+v, want nothing", got)
	}
}

func FuzzRead(f *testing.F) {
	p, err := seccomp.Build(seccomp.Spec{Arch: syscalls.AMD64, Calls: append(calls("read", "clone"),
		seccomp.Call{Name: "fcntl", Args: []seccomp.Condition{{Index: 1, Op: seccomp.MaskedEqual, Value: 3, ValueTwo: 1}}})})
	if err != nil {
		f.Fatal(err)
	}
	data, err := p.JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X86"],"syscalls":[{"name":"read","action":"SCMP_ACT_KILL"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := seccomp.Read(data)
		if err != nil {
			return
		}
		out, err := p.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := seccomp.Read(out); err != nil {
			t.Fatalf("what was read can't be read again: %v\n%s", err, out)
		}
		if program, err := seccomp.Compile(p); err == nil {
			if _, err := program.Run(syscalls.AMD64, 0); err != nil {
				t.Fatalf("a compiled profile doesn't run: %v", err)
			}
		}
	})
}
