package proc

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMaps(t *testing.T) {
	const text = `55d0c0a00000-55d0c0a02000 r--p 00000000 fe:00 101                        /usr/bin/cat
55d0c0a02000-55d0c0a06000 r-xp 00002000 fe:00 101                        /usr/bin/cat
7f0000000000-7f0000001000 r-xp 00000000 fe:00 202                        /srv/a b (deleted)
7f0000001000-7f0000002000 r-xp 00000000 fe:00 202                        /srv/a b (deleted)
7f0000002000-7f0000003000 rwxp 00000000 00:00 0
7f0000003000-7f0000004000 r-xp 00000000 00:01 303                        /memfd:code (deleted)
7f0000004000-7f0000005000 r-xp 00000000 fe:00 404                        /srv/new\012line
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]
`
	got := parseMaps(text, "/")
	var paths []string
	for _, f := range got {
		paths = append(paths, f.Path)
	}
	if want := []string{"/usr/bin/cat", "/srv/a b (deleted)", "memfd:code", "/srv/new\nline"}; !slices.Equal(paths, want) {
		t.Fatalf("%q, want %q", paths, want)
	}
	if id := got[0].ID; id.GetInode() != 101 || id.GetDevice() != unix.Mkdev(0xfe, 0) {
		t.Errorf("identity %v", id)
	}
}

func TestInRoot(t *testing.T) {
	for _, c := range []struct{ path, root, want string }{
		{"/usr/bin/cat", "/", "/usr/bin/cat"},
		{"/jail/bin/cat", "/jail", "/bin/cat"},
		{"/jail", "/jail", "/"},
		{"/jailed/cat", "/jail", "(unreachable)/jailed/cat"},
		{"/memfd:x (deleted)", "/jail", "memfd:x"},
		{"/a\xff", "/", "/a\uFFFD"},
	} {
		if got := inRoot(c.path, c.root); got != c.want {
			t.Errorf("%q in %q: %q, want %q", c.path, c.root, got, c.want)
		}
	}
}

// What is read of a process agrees with what it knows of itself.
func TestOwnProcess(t *testing.T) {
	p, err := Open(int32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	image, err := p.Image()
	if err != nil {
		t.Fatal(err)
	}
	if self, _ := os.Executable(); image.Path != self {
		t.Errorf("image %s, want %s", image.Path, self)
	}
	if parent, err := p.Parent(); err != nil || int(parent) != os.Getppid() {
		t.Errorf("parent %d, %v, want %d", parent, err, os.Getppid())
	}
	if args, err := p.Args(); err != nil || !slices.Equal(args, os.Args) {
		t.Errorf("arguments %q, %v, want %q", args, err, os.Args)
	}
	files, err := p.Mappings()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f File) bool { return f.Path == image.Path }) {
		t.Errorf("%s isn't among the mappings %v", image.Path, files)
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add("7f00-7f01 r-xp 0 fe:00 2 /a\n", "/")
	f.Add("7f00-7f01 r-xp 0 fe:00 2\n", "/x")
	f.Fuzz(func(t *testing.T, text, root string) {
		for _, m := range parseMaps(text, root) {
			if m.Path == "" || m.ID.GetInode() == 0 && text == "" {
				t.Errorf("%q: %v", text, m)
			}
		}
	})
}
