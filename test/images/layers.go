package images

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// never are files of a Debian root that no image holds.
var never = []string{
	"dev/*", "proc/*", "sys/*", "run/*", "tmp/*",
	"var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*.log", "var/log/apt",
	"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale/*",
}

// debian makes the layer of Debian packages.
func (b *builder) debian(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errors.New("mmdebstrap is missing; scripts/install-demo-deps installs it")
	}
	argv := []string{"mmdebstrap", "--variant=minbase", "--quiet", "--include=" + strings.Join(b.recipe.Packages, ",")}
	for _, dir := range []string{"doc", "man", "info", "locale"} {
		argv = append(argv, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	if b.recipe.Setup != "" {
		argv = append(argv, `--customize-hook=chroot "$1" sh -ec "$CONFINE_SETUP"`)
	}
	argv = append(argv, b.suite, "-")
	if mirror := os.Getenv("CONFINE_DEBIAN_MIRROR"); mirror != "" {
		argv = append(argv, mirror)
	}
	r, w := io.Pipe()
	go func() {
		env := []string{"CONFINE_SETUP=" + b.recipe.Setup, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch)}
		w.CloseWithError(run(ctx, w, env, argv...))
	}()
	file := filepath.Join(b.dir, "debian.tar.gz")
	err := writeLayer(file, func(out *tar.Writer) error {
		if err := b.filter(tar.NewReader(r), out); err != nil {
			return err
		}
		// The archive has an end of its own; what comes after it is how the
		// tool ended.
		_, err := io.Copy(io.Discard, r)
		return err
	})
	// Lets the tool end when the writer gave up.
	r.CloseWithError(err)
	return file, err
}

// filter copies a root file system without what the image leaves out.
func (b *builder) filter(in *tar.Reader, out *tar.Writer) error {
	left := map[string]bool{}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read root: %w", err)
		}
		name := strings.Trim(path.Clean("/"+h.Name), "/")
		if name == "" {
			continue
		}
		if matches(never, name) || b.recipe.leaves(name) && h.Typeflag != tar.TypeDir {
			left[name] = true
			continue
		}
		if h.Typeflag == tar.TypeLink && left[strings.Trim(path.Clean("/"+h.Linkname), "/")] {
			return fmt.Errorf("%s is a hard link to %s, which the image leaves out", name, h.Linkname)
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
		if _, err := io.Copy(out, in); err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
	}
}

// overlay makes the layer of our own files, "" when there are none.
func (b *builder) overlay(ctx context.Context) (string, error) {
	r := b.recipe
	if len(r.Folders)+len(r.Programs)+len(r.Files)+len(r.Links) == 0 {
		return "", nil
	}
	file := filepath.Join(b.dir, "own.tar.gz")
	return file, writeLayer(file, func(out *tar.Writer) error {
		l := &layer{out: out, made: map[string]bool{}}
		for _, dir := range r.Folders {
			if err := l.folder(dir); err != nil {
				return err
			}
		}
		for _, p := range r.Programs {
			if err := b.program(ctx, l, p); err != nil {
				return err
			}
		}
		for _, f := range r.Files {
			if err := l.copy(f.Path, f.Executable, f.open); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(r.Links)) {
			if err := l.link(name, r.Links[name]); err != nil {
				return err
			}
		}
		return nil
	})
}

// program compiles a program into the layer.
func (b *builder) program(ctx context.Context, l *layer, p Program) error {
	source, err := content.ReadFile(path.Join("src", p.Source))
	if err != nil {
		return err
	}
	in, out := filepath.Join(b.dir, path.Base(p.Source)), filepath.Join(b.dir, "program")
	if err := os.WriteFile(in, source, 0o644); err != nil {
		return err
	}
	argv := slices.Clone(p.Command)
	for i := range argv {
		argv[i] = strings.NewReplacer("$SOURCE", in, "$OUTPUT", out).Replace(argv[i])
	}
	if err := run(ctx, io.Discard, p.Env, argv...); err != nil {
		return fmt.Errorf("compile %s: %w", p.Source, err)
	}
	return l.copy(p.Path, true, func() (io.ReadCloser, error) { return os.Open(out) })
}

// layer writes files that have no time stamp and belong to root.
type layer struct {
	out *tar.Writer
	// made holds the folders that are there.
	made map[string]bool
}

func (l *layer) header(h tar.Header) error {
	h.ModTime, h.Format = time.Unix(epoch, 0), tar.FormatPAX
	if err := l.out.WriteHeader(&h); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

// folder makes a folder that the recipe names.
func (l *layer) folder(name string) error {
	name = strings.Trim(name, "/")
	if l.made[name] {
		return nil
	}
	l.made[name] = true
	mode := int64(0o755)
	if path.Base(name) == "tmp" {
		mode = 0o1777
	}
	return l.header(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

func (l *layer) copy(name string, executable bool, open func() (io.ReadCloser, error)) error {
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if executable {
		mode = 0o755
	}
	if err := l.header(tar.Header{Typeflag: tar.TypeReg, Name: strings.Trim(name, "/"), Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err = l.out.Write(data)
	return err
}

func (l *layer) link(name, target string) error {
	return l.header(tar.Header{Typeflag: tar.TypeSymlink, Name: strings.Trim(name, "/"), Linkname: target, Mode: 0o777})
}

// writeLayer makes a compressed tar file.
func writeLayer(file string, fill func(*tar.Writer) error) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zip, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := tar.NewWriter(zip)
	if err := fill(out); err != nil {
		return err
	}
	return errors.Join(out.Close(), zip.Close())
}
