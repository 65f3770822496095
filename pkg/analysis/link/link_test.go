package link_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/link"
	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/rootfs"
)

const loader = "/lib64/ld-linux-x86-64.so.2"

// file is an object of a fake root.
type file struct {
	path   string
	needs  []string // sonames
	flags  string   // for the linker, separated by blanks
	soname string   // the path's base when ""; "-" for none
	musl   bool     // a program of musl's loader
}

// scene is a fake root and what a program in it loads.
type scene struct {
	name  string
	files []file
	texts map[string]string // path to content
	links map[string]string // path to target
	env   []string
	cache bool // make /etc/ld.so.cache with ldconfig
	// want holds the paths of the members, the program and the loader left
	// out, in the loader's order.
	want []string
	// alternates are what other processors load.
	alternates []string
	missing    []string
	// unlike says why the loader of this machine can't be asked.
	unlike string
}

func scenes() []scene {
	lib := func(p string, needs ...string) file { return file{path: p, needs: needs} }
	return []scene{
		{
			name: "default folders", want: []string{"/lib/x86_64-linux-gnu/liba.so", "/usr/lib/libb.so"},
			files: []file{{path: "/prog", needs: []string{"liba.so"}}, lib("/lib/x86_64-linux-gnu/liba.so", "libb.so"), lib("/usr/lib/liba.so"), lib("/usr/lib/libb.so")},
		},
		{
			name: "RPATH before LD_LIBRARY_PATH before the defaults", env: []string{"LD_LIBRARY_PATH=/env"},
			files: []file{
				{path: "/prog", needs: []string{"liba.so", "libb.so", "libc0.so"}, flags: "-Wl,--disable-new-dtags -Wl,-rpath,/rp"},
				lib("/rp/liba.so"), lib("/env/liba.so"), lib("/lib/liba.so"), lib("/env/libb.so"), lib("/lib/libb.so"), lib("/lib/libc0.so"),
			},
			want: []string{"/rp/liba.so", "/env/libb.so", "/lib/libc0.so"},
		},
		{
			name: "LD_LIBRARY_PATH before RUNPATH", env: []string{"LD_LIBRARY_PATH=/nowhere:/env;/env2"},
			files: []file{
				{path: "/prog", needs: []string{"liba.so", "libb.so", "libc0.so"}, flags: "-Wl,--enable-new-dtags -Wl,-rpath,/rp"},
				lib("/rp/liba.so"), lib("/env/liba.so"), lib("/rp/libb.so"), lib("/lib/libb.so"), lib("/env2/libc0.so"),
			},
			want: []string{"/env/liba.so", "/rp/libb.so", "/env2/libc0.so"},
		},
		{
			name: "RPATH of the program counts for what its libraries need, RUNPATH doesn't",
			files: []file{
				{path: "/prog", needs: []string{"liba.so"}, flags: "-Wl,--disable-new-dtags -Wl,-rpath,/rp"},
				lib("/rp/liba.so", "libb.so"), lib("/rp/libb.so"), lib("/lib/libb.so"),
			},
			want: []string{"/rp/liba.so", "/rp/libb.so"},
		},
		{
			name: "RUNPATH of the program doesn't count for what its libraries need",
			files: []file{
				{path: "/prog", needs: []string{"liba.so"}, flags: "-Wl,--enable-new-dtags -Wl,-rpath,/rp"},
				lib("/rp/liba.so", "libb.so"), lib("/rp/libb.so"), lib("/lib/libb.so"),
			},
			want: []string{"/rp/liba.so", "/lib/libb.so"},
		},
		{
			name: "a RUNPATH makes a library's own and its loaders' RPATH void",
			files: []file{
				{path: "/prog", needs: []string{"liba.so"}, flags: "-Wl,--disable-new-dtags -Wl,-rpath,/rp"},
				{path: "/rp/liba.so", needs: []string{"libb.so"}, flags: "-Wl,--enable-new-dtags -Wl,-rpath,/run"},
				lib("/rp/libb.so"), lib("/run/libb.so"),
			},
			want: []string{"/rp/liba.so", "/run/libb.so"},
		},
		{
			name: "$ORIGIN",
			files: []file{
				{path: "/opt/app/bin/prog", needs: []string{"liba.so", "libd.so"}, flags: "-Wl,-rpath,$ORIGIN/../lib:${ORIGIN}/plug"},
				{path: "/opt/app/lib/liba.so", needs: []string{"libb.so"}, flags: "-Wl,-rpath,$ORIGIN/deep"},
				lib("/opt/app/lib/deep/libb.so"), lib("/opt/app/bin/plug/libd.so"),
			},
			want: []string{"/opt/app/lib/liba.so", "/opt/app/bin/plug/libd.so", "/opt/app/lib/deep/libb.so"},
		},
		{
			name: "ld.so.conf with includes, through the cache", cache: true,
			texts: map[string]string{"/etc/ld.so.conf": "# comment\ninclude ld.so.conf.d/*.conf\n/late # there\n", "/etc/ld.so.conf.d/a.conf": "/conf\n", "/etc/ld.so.conf.d/b.txt": "/wrong\n"},
			files: []file{{path: "/prog", needs: []string{"liba.so", "libb.so"}}, lib("/conf/liba.so"), lib("/wrong/libb.so"), lib("/late/libb.so"), lib("/late/liba.so")},
			want:  []string{"/conf/liba.so", "/late/libb.so"},
		},
		{
			name: "ld.so.conf without a cache", unlike: "the loader reads only the cache; an image without one gets it before it runs",
			texts: map[string]string{"/etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf\ninclude /etc/ld.so.conf\n", "/etc/ld.so.conf.d/a.conf": "/conf\n"},
			files: []file{{path: "/prog", needs: []string{"liba.so"}}, lib("/conf/liba.so")},
			want:  []string{"/conf/liba.so"},
		},
		{
			name:       "folders for certain processors",
			files:      []file{{path: "/prog", needs: []string{"liba.so"}}, lib("/lib/liba.so"), lib("/lib/glibc-hwcaps/x86-64-v2/liba.so"), lib("/lib/glibc-hwcaps/x86-64-v3/liba.so", "libb.so"), lib("/lib/libb.so")},
			want:       []string{"/lib/glibc-hwcaps/x86-64-v3/liba.so", "/lib/glibc-hwcaps/x86-64-v2/liba.so", "/lib/liba.so", "/lib/libb.so"},
			alternates: []string{"/lib/glibc-hwcaps/x86-64-v2/liba.so", "/lib/liba.so"},
		},
		{
			name:  "links: absolute, relative, and folders",
			files: []file{{path: "/prog", needs: []string{"liba.so.1", "libb.so"}, flags: ""}, {path: "/real/liba.so.1.2.3", soname: "liba.so.1"}, lib("/real/libb.so")},
			links: map[string]string{"/usr/lib/liba.so.1": "/real/liba.so.1.2.3", "/usr/lib/libb.so": "../../real/libb.so"},
			want:  []string{"/real/liba.so.1.2.3", "/real/libb.so"},
		},
		{
			name:  "one file by two names is one member",
			files: []file{{path: "/prog", needs: []string{"liba.so", "libalias.so"}}, {path: "/lib/liba.so", soname: "-"}},
			links: map[string]string{"/lib/libalias.so": "liba.so"},
			want:  []string{"/lib/liba.so"},
		},
		{
			name:  "loops of links, and a library that isn't there",
			files: []file{{path: "/prog", needs: []string{"liba.so", "libnone.so"}}, lib("/usr/lib/liba.so", "libnone2.so")},
			links: map[string]string{"/lib/liba.so": "/lib/libx.so", "/lib/libx.so": "/lib/liba.so", "/rp": "/rp"},
			want:  []string{"/usr/lib/liba.so"}, missing: []string{"libnone.so", "libnone2.so"},
			unlike: "it stops at what is missing",
		},
		{
			name:  "libraries that need each other",
			files: []file{{path: "/prog", needs: []string{"liba.so"}}, lib("/lib/liba.so", "libb.so"), lib("/lib/libb.so", "libc0.so", "liba.so"), lib("/lib/libc0.so", "liba.so")},
			want:  []string{"/lib/liba.so", "/lib/libb.so", "/lib/libc0.so"},
		},
		{
			name:  "breadth first, and a name that is there already isn't searched for",
			files: []file{{path: "/prog", needs: []string{"liba.so", "libb.so"}, flags: "-Wl,-rpath,/one"}, {path: "/one/liba.so", needs: []string{"libc0.so", "libb.so"}, flags: "-Wl,-rpath,/two"}, lib("/one/libb.so", "libd.so"), lib("/two/libb.so"), lib("/two/libc0.so"), lib("/lib/libd.so")},
			want:  []string{"/one/liba.so", "/one/libb.so", "/two/libc0.so", "/lib/libd.so"},
		},
		{
			name: "LD_PRELOAD comes first", env: []string{"LD_PRELOAD=/pre/libp.so libq.so"},
			files: []file{{path: "/prog", needs: []string{"liba.so"}}, lib("/lib/liba.so"), lib("/pre/libp.so", "libr.so"), lib("/lib/libq.so"), lib("/lib/libr.so")},
			want:  []string{"/pre/libp.so", "/lib/libq.so", "/lib/liba.so", "/lib/libr.so"},
		},
		{
			name:  "/etc/ld.so.preload",
			texts: map[string]string{"/etc/ld.so.preload": "/pre/libp.so\n"},
			files: []file{{path: "/prog", needs: []string{"liba.so"}}, lib("/lib/liba.so"), lib("/pre/libp.so")},
			want:  []string{"/pre/libp.so", "/lib/liba.so"},
		},
		{
			name: "a needed path", unlike: "",
			files: []file{{path: "/prog", needs: []string{"liba.so"}}, {path: "/lib/liba.so", needs: []string{"/opt/libpath.so"}}, {path: "/opt/libpath.so", soname: "/opt/libpath.so"}},
			want:  []string{"/lib/liba.so", "/opt/libpath.so"},
		},
		{
			name:  "a file that is no library is passed over",
			texts: map[string]string{"/rp/liba.so": "INPUT(liba.so.1)\n"}, unlike: "it stops at such a file",
			files: []file{{path: "/prog", needs: []string{"liba.so"}, flags: "-Wl,-rpath,/rp"}, lib("/lib/liba.so")},
			want:  []string{"/lib/liba.so"},
		},
		{
			name: "musl with a path file", unlike: "it is musl's",
			texts: map[string]string{"/etc/ld-musl-x86_64.path": "/m1\n/m2\n"},
			files: []file{{path: "/prog", needs: []string{"liba.so", "libb.so", "libc.so"}, musl: true}, lib("/m1/liba.so"), lib("/m2/liba.so"), lib("/m2/libb.so"), lib("/lib/libb.so"), lib("/lib/ld-musl-x86_64.so.1")},
			want:  []string{"/m1/liba.so", "/m2/libb.so"},
		},
		{
			name: "musl by default: RPATH and RUNPATH are one, and are inherited", unlike: "it is musl's",
			files: []file{
				{path: "/prog", needs: []string{"liba.so", "libd.so"}, musl: true, flags: "-Wl,-rpath,/rp"},
				lib("/rp/liba.so", "libb.so"), lib("/rp/libb.so"), lib("/lib/libb.so"), lib("/usr/local/lib/libd.so"), lib("/usr/lib/libd.so"), lib("/lib/ld-musl-x86_64.so.1"),
			},
			want: []string{"/rp/liba.so", "/usr/local/lib/libd.so", "/rp/libb.so"},
		},
	}
}

// make builds an object with gcc; stubs hold what it needs at link time.
func (f *file) make(t *testing.T, root, stubs string) {
	t.Helper()
	out := filepath.Join(root, f.path)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-nostdlib", "-x", "c", "/dev/null", "-x", "none", "-o", out, "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"}
	switch base := path.Base(f.path); {
	case !strings.Contains(base, ".so"):
		interp := loader
		if f.musl {
			interp = "/lib/ld-musl-x86_64.so.1"
		}
		args = append(args, "-pie", "-Wl,-e,0", "-Wl,--dynamic-linker="+interp)
	case f.soname == "-":
		args = append(args, "-shared")
	case f.soname != "":
		args = append(args, "-shared", "-Wl,-soname,"+f.soname)
	default:
		args = append(args, "-shared", "-Wl,-soname,"+base)
	}
	args = append(args, strings.Fields(f.flags)...)
	for _, n := range f.needs {
		args = append(args, stub(t, stubs, n))
	}
	run(t, "gcc", args...)
}

// stub makes a library of a soname to link with.
func stub(t *testing.T, dir, soname string) string {
	t.Helper()
	p := filepath.Join(dir, strings.ReplaceAll(soname, "/", "_"))
	if _, err := os.Stat(p); err == nil {
		return p
	}
	run(t, "gcc", "-nostdlib", "-shared", "-x", "c", "/dev/null", "-o", p, "-Wl,-soname,"+soname)
	return p
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (s *scene) make(t *testing.T, stubs string) string {
	t.Helper()
	root := t.TempDir()
	for i := range s.files {
		s.files[i].make(t, root, stubs)
	}
	for p, text := range s.texts {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for p, target := range s.links {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, p); err != nil {
			t.Fatal(err)
		}
	}
	if s.cache {
		ldconfig := "/sbin/ldconfig"
		run(t, ldconfig, "-X", "-r", root)
	}
	return root
}

// linked returns the members of a program as Startup finds them.
func linked(t *testing.T, root, program string, env []string) *link.Linker {
	t.Helper()
	d, err := rootfs.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	set := objects.NewSet(d, objects.Options{})
	t.Cleanup(set.Wait)
	o, err := set.Load(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(set, d, link.NewSystem(d), o, env)
	if err := l.Startup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func paths(members []*link.Member, but ...string) []string {
	var out []string
	for _, m := range members {
		if !slices.Contains(but, m.Object.Path) {
			out = append(out, m.Object.Path)
		}
	}
	return out
}

func TestScenes(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed")
	}
	stubs := t.TempDir()
	for _, s := range scenes() {
		for _, f := range s.files {
			for _, n := range f.needs {
				stub(t, stubs, n)
			}
		}
	}
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			root := s.make(t, stubs)
			program := s.files[0].path
			l := linked(t, root, program, s.env)
			got := paths(l.Members(), program, loader, "/lib/ld-musl-x86_64.so.1")
			if !slices.Equal(got, s.want) {
				t.Errorf("members\n%v, want\n%v", got, s.want)
			}
			var alternates, missing []string
			for _, m := range l.Members() {
				alternates = append(alternates, paths(m.Alternates)...)
			}
			if !slices.Equal(alternates, s.alternates) {
				t.Errorf("alternates %v, want %v", alternates, s.alternates)
			}
			for _, m := range l.Missing {
				if m.Name != loader {
					missing = append(missing, m.Name)
				}
			}
			slices.Sort(missing)
			if !slices.Equal(missing, s.missing) {
				t.Errorf("missing %v, want %v", missing, s.missing)
			}
			if s.unlike == "" {
				s.ask(t, root, program, got)
			}
		})
	}
}

// ask runs this machine's loader in the root: what it loads must be among the
// members, and, unless others are for other processors, in the same order.
func (s *scene) ask(t *testing.T, root, program string, got []string) {
	t.Helper()
	ld, err := os.ReadFile(loader)
	if err != nil || os.Geteuid() != 0 {
		t.Logf("the loader isn't asked: %v, user %d", err, os.Geteuid())
		return
	}
	if err := os.MkdirAll(filepath.Join(root, "/lib64"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, loader), ld, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chroot", root, loader, "--list", program)
	cmd.Env = s.env
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
	}
	var real []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " (0x")
		if _, p, ok := strings.Cut(line, " => "); ok {
			line = p
		}
		if !strings.HasPrefix(line, "/") || line == loader {
			continue
		}
		real = append(real, canonical(t, root, line))
	}
	if s.alternates != nil {
		got = slices.DeleteFunc(slices.Clone(got), func(p string) bool { return !slices.Contains(real, p) })
	}
	if !slices.Equal(got, real) {
		t.Errorf("members\n%v, and the loader loads\n%v\n%s", got, real, text)
	}
}

// canonical resolves a path inside the root.
func canonical(t *testing.T, root, p string) string {
	t.Helper()
	d, err := rootfs.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	e, err := d.Lookup(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return e.Path
}

// TestMachine links programs of this machine and wants what its loader loads.
func TestMachine(t *testing.T) {
	n := 0
	for _, p := range []string{"/bin/bash", "/usr/bin/perl", "/usr/bin/git", "/usr/bin/redis-server", "/usr/sbin/nginx", "/usr/bin/openssl", "/usr/bin/gdb", "/usr/bin/python3", "/usr/bin/as"} {
		if _, err := os.Stat(p); err != nil {
			continue
		}
		cmd := exec.Command(p)
		cmd.Env = []string{"LD_TRACE_LOADED_OBJECTS=1"}
		text, err := cmd.Output()
		if err != nil || !strings.Contains(string(text), "=>") {
			continue
		}
		n++
		want := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " (0x")
			if _, q, ok := strings.Cut(line, " => "); ok {
				line = q
			}
			if strings.HasPrefix(line, "/") {
				want[canonical(t, "/", line)] = true
			}
		}
		l := linked(t, "/", p, nil)
		got := map[string]bool{}
		for _, q := range paths(l.Members(), canonical(t, "/", p)) {
			got[q] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, the loader says %v", p, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
		if len(l.Missing)+len(l.Unreadable) > 0 {
			t.Errorf("%s: missing %v, unreadable %v", p, l.Missing, l.Unreadable)
		}
	}
	if n == 0 {
		t.Skip("no dynamic program of the list is here")
	}
}

// TestLoad opens libraries at run time: by name, path, again, and by a name of
// nothing.
func TestLoad(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed")
	}
	s := scene{files: []file{
		{path: "/prog", needs: []string{"liba.so"}, flags: "-Wl,-rpath,/rp"}, {path: "/lib/liba.so"},
		{path: "/rp/libplug.so", needs: []string{"libdep.so", "libgone.so"}}, {path: "/lib/libdep.so"}, {path: "/opt/mod.so"},
	}, texts: map[string]string{"/lib/libtext.so": "no ELF"}}
	l := linked(t, s.make(t, t.TempDir()), "/prog", nil)
	main := l.Members()[0]
	for _, c := range []struct {
		name, want string
		members    int
	}{
		{"liba.so", "/lib/liba.so", 2},
		{"libplug.so", "/rp/libplug.so", 4},
		{"libplug.so", "/rp/libplug.so", 4},
		{"/opt/mod.so", "/opt/mod.so", 5},
		{"/rp/libplug.so", "/rp/libplug.so", 5},
		{"libtext.so", "", 5},
		{"libnothing.so", "", 5},
		{"relative/liba.so", "", 5},
		{"/rp", "", 5},
		{"", "", 5},
	} {
		m, err := l.Load(t.Context(), c.name, main)
		got := ""
		if m != nil {
			got = m.Object.Path
		}
		if err != nil || got != c.want || len(l.Members()) != c.members {
			t.Errorf("%q: %q and %d members, %v; want %q and %d", c.name, got, len(l.Members()), err, c.want, c.members)
		}
	}
	if got := fmt.Sprint(l.Missing); !strings.Contains(got, "libgone.so") || strings.Contains(got, "libnothing.so") {
		t.Errorf("missing %v", got)
	}
	if len(l.Unreadable) > 0 {
		t.Errorf("unreadable %v", l.Unreadable)
	}
}
