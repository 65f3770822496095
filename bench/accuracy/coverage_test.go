package main

import (
	"debug/elf"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/confinehq/confine/internal/factsdir"
	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/syscalls"
)

// A plain return, which no stub consists of.
const returns = 0xc3

func known() *answer {
	text := slices.Repeat([]byte{returns}, 0x100)
	copy(text[0x80:], []byte{0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 1, 2, 3, 4}) // endbr64; jmp *slot
	copy(text[0x90:], []byte{0x31, 0xc0, 0xff, 0x25, 1, 2, 3, 4})             // xor eax, eax; jmp *slot
	sites := []facts.Site{
		{Addr: 0x2005, Kind: facts.SiteSyscall, Nrs: []int32{0, 1}},
		{Addr: 0x2008, Kind: facts.SiteSyscall, Params: []facts.Loc{0}},
		{Addr: 0x200a, Kind: facts.SiteSyscall, Nrs: []int32{41}, Args: []facts.Arg{{At: 0, Values: []uint32{2}}}},
	}
	return &answer{
		arch:    syscalls.AMD64,
		allowed: map[string]bool{"read": true, "write": true, "socket": true},
		conditions: map[argument]map[uint32]bool{
			{"socket", 0}: {1: true, 2: true},
		},
		objects: map[string]*code{"/p": {
			facts: &facts.Facts{Machine: elf.EM_X86_64, Symbols: map[uint32]string{1: "f"}, Funcs: []facts.Func{
				{Start: 0x2000, End: 0x2010, Sites: sites}, {Start: 0x2010, End: 0x2020}, {Start: 0x2030, End: 0x2040},
			}},
			reached:  map[uint64]bool{0x2000: true, 0x2030: true},
			segments: []segment{{addr: 0x2000, offset: 0x1000, code: text}},
		}},
	}
}

func TestHold(t *testing.T) {
	const p = "/p"
	tests := map[string]struct {
		blocks []span
		calls  []entry
		want   []string
	}{
		"blocks of what is reached":  {blocks: []span{{p, 0x1000, 0x100f}, {p, 0x1030, 0x1031}}},
		"compiled at run time":       {blocks: []span{{"", 0x7000, 0x7001}}},
		"unreached":                  {blocks: []span{{p, 0x1014, 0x1014}, {p, 0x1011, 0x1012}}, want: []string{"/p: [0x2010,0x2020) f is not reached: 0x2011"}},
		"runs on into the next":      {blocks: []span{{p, 0x100f, 0x1010}}, want: []string{"/p: [0x2010,0x2020) f is not reached: 0x2010"}},
		"between functions":          {blocks: []span{{p, 0x1020, 0x1021}}, want: []string{"/p: no function before [0x2030,0x2040): 0x2020"}},
		"behind the last":            {blocks: []span{{p, 0x1050, 0x1050}}, want: []string{"/p: no function before the end: 0x2050"}},
		"a stub":                     {blocks: []span{{p, 0x1080, 0x1084}}},
		"no stub":                    {blocks: []span{{p, 0x1090, 0x1092}}, want: []string{"/p: no function before the end: 0x2090"}},
		"outside of segments":        {blocks: []span{{p, 0x100, 0x100}}, want: []string{"/p: offset lies in no segment: 0x100"}},
		"an object nobody knows":     {blocks: []span{{"/q", 0x1000, 0x1000}}, want: []string{"object /q"}},
		"calls of the site":          {calls: []entry{{p, 0x1005, 0, [6]uint32{}}, {p, 0x1005, 1, [6]uint32{}}}},
		"a call of another site":     {calls: []entry{{p, 0x1005, 41, [6]uint32{2}}}, want: []string{"socket at /p+0x2005 is not among the numbers [0 1] of the site"}},
		"a call that isn't allowed":  {calls: []entry{{p, 0x1008, 2, [6]uint32{}}}, want: []string{"open at /p+0x2008 is not allowed"}},
		"a number that is passed":    {calls: []entry{{p, 0x1008, 1, [6]uint32{}}}},
		"no site":                    {calls: []entry{{p, 0x1030, 1, [6]uint32{}}}, want: []string{"write at /p+0x2030 is made by no site"}},
		"an argument of the site":    {calls: []entry{{p, 0x100a, 41, [6]uint32{2}}}},
		"one of other sites":         {calls: []entry{{p, 0x100a, 41, [6]uint32{1}}}, want: []string{"socket at /p+0x200a has the argument 0=0x1, and the site only [0x2]"}},
		"one that isn't allowed":     {calls: []entry{{p, 0x1008, 41, [6]uint32{3}}}, want: []string{"socket at /p+0x2008 has the argument 0=0x3, which is not allowed"}},
		"a number that isn't a call": {calls: []entry{{p, 0x1005, 9999, [6]uint32{}}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := &execution{blocks: map[span]bool{}, calls: map[entry]bool{}}
			for _, b := range tt.blocks {
				e.blocks[b] = true
			}
			for _, c := range tt.calls {
				e.calls[c] = true
			}
			got, outside := known().hold(e)
			if !slices.Equal(got, tt.want) {
				t.Errorf("lacks %q, want %q", got, tt.want)
			}
			if want := map[bool]int{true: 1}[name == "compiled at run time"]; outside != want {
				t.Errorf("%d blocks lie outside of files, want %d", outside, want)
			}
		})
	}
}

func TestReadLines(t *testing.T) {
	const record = "x /p\nb 10 1f /p\nb 20 2f /a b\nb 7f00 7f01 -\nb 0 1 /memfd:jit (deleted)\nc 1f 41 2 0 0 0 0 0 /p\nn /bin/ls\n"
	e, err := readLines([]byte(record), map[string]*execution{})
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[span]bool{{"/p", 0x10, 0x1f}: true, {"/a b", 0x20, 0x2f}: true, {"", 0x7f00, 0x7f01}: true, {"", 0, 1}: true}
	calls := map[entry]bool{{"/p", 0x1f, 41, [6]uint32{2}}: true}
	if e.image != "/p" || !maps.Equal(e.blocks, blocks) || !maps.Equal(e.calls, calls) || !maps.Equal(e.left, map[string]bool{"/bin/ls": true}) {
		t.Errorf("read %+v", e)
	}
	for _, bad := range []string{"b 10 1f /p\n", "x /p\nb 10\n", "x /p\nc 1f x\n"} {
		if _, err := readLines([]byte(bad), map[string]*execution{}); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestLeadsOn(t *testing.T) {
	tests := []struct {
		name    string
		machine elf.Machine
		code    []byte
		last    int
		want    bool
	}{
		{"head of the table", elf.EM_X86_64, []byte{0xff, 0x35, 1, 2, 3, 4, 0xff, 0x25, 1, 2, 3, 4}, 6, true},
		{"lazy stub", elf.EM_X86_64, []byte{0x68, 0, 0, 0, 0, 0xe9, 1, 2, 3, 4}, 5, true},
		{"call", elf.EM_X86_64, []byte{0xff, 0x15, 1, 2, 3, 4}, 0, false},
		{"jump through a table", elf.EM_X86_64, []byte{0xff, 0x24, 0xc5, 1, 2, 3, 4}, 0, false},
		{"system call", elf.EM_X86_64, []byte{0x90, 0x0f, 0x05}, 1, false},
		{"cut off", elf.EM_X86_64, []byte{0x90}, 1, false},
		{"stub by ebx", elf.EM_386, []byte{0xff, 0xa3, 1, 2, 3, 4}, 0, true},
		{"stub", elf.EM_AARCH64, []byte{0x10, 0, 0, 0x90, 0x11, 2, 0x40, 0xf9, 0x10, 2, 0, 0x91, 0x20, 2, 0x1f, 0xd6}, 12, true},
		{"svc", elf.EM_AARCH64, []byte{1, 0, 0, 0xd4}, 0, false},
	}
	for _, tt := range tests {
		if got := leadsOn(tt.machine, tt.code, tt.last); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestCoverage runs a real program under the plugin: the analysis lacks
// nothing of it, and each function that it is made to lack is missed.
func TestCoverage(t *testing.T) {
	for _, tool := range []string{"qemu-x86_64", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CONFINE_REQUIRE_ALL") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	plugin := filepath.Join(dir, "recorder.so")
	if err := compile(t.Context(), plugin); err != nil {
		t.Fatal(err)
	}
	if err := writeMasks(dir); err != nil {
		t.Fatal(err)
	}
	w := emulated(dir, plugin)
	out, err := exec.Command(w.command[0], append(w.command[1:], "-c", "/bin/true; exit 5")...).CombinedOutput()
	if exit := (&exec.ExitError{}); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Fatalf("sh ended with %v, not 5: %s", err, out)
	}
	all, err := readRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d images were recorded, not a shell and true", len(all))
	}
	cache, err := factsdir.Open(filepath.Join(dir, "facts"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if len(e.blocks) < 500 || len(e.calls) < 10 || len(e.left) > 0 {
			t.Errorf("%s: %d blocks, %d calls, without a record %v", e.image, len(e.blocks), len(e.calls), e.left)
		}
		a, err := ask(t.Context(), e.image, nil, cache)
		if err != nil {
			t.Fatal(err)
		}
		if lacks, _ := a.hold(e); len(lacks) > 0 {
			t.Errorf("%s: lacks %q", e.image, lacks)
		}
		o := a.objects[e.image]
		for start := range maps.Clone(o.reached) {
			o.reached[start] = false
		}
		if lacks, _ := a.hold(e); len(lacks) == 0 {
			t.Errorf("%s: nothing is missed when nothing is reached", e.image)
		}
	}
}
