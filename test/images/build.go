package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// format changes when images of an unchanged recipe have to be made anew.
const format = "1"

// epoch is the time stamp of files that have none of their own, in seconds:
// an image has the same digest whenever it is made from the same packages.
const epoch = 1735689600

// Image is a finished archive.
type Image struct {
	// Ref is the full reference that the archive states.
	Ref string
	// Path of the OCI archive (a tar file).
	Path string
}

// CacheDir is the folder that archives are kept in unless told otherwise.
func CacheDir() string {
	if dir := os.Getenv("CONFINE_CACHE"); dir != "" {
		return filepath.Join(dir, "images")
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "confine", "images")
	}
	return "/var/cache/confine/images"
}

// Build returns the archive of a recipe, made anew only when the cache folder
// lacks it. What it does goes to log.
func Build(ctx context.Context, name, cache string, log io.Writer) (*Image, error) {
	r, err := Load(name)
	if err != nil {
		return nil, err
	}
	b := &builder{recipe: r, log: log}
	if b.suite, err = suite(); err != nil && len(r.Packages) > 0 {
		return nil, err
	}
	key, err := b.key()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("create image cache: %w", err)
	}
	image := &Image{Ref: r.Name, Path: filepath.Join(cache, name+"-"+key+".tar")}
	unlock, err := lock(filepath.Join(cache, name+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(image.Path); err == nil {
		return image, nil
	}
	fmt.Fprintf(log, "making image %s\n", r.Name)
	if b.dir, err = os.MkdirTemp(cache, ".making-"); err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	defer os.RemoveAll(b.dir)
	file, err := b.build(ctx)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	if err := os.Rename(file, image.Path); err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	removeOthers(cache, name, image.Path)
	return image, nil
}

// builder makes one image in a folder of its own.
type builder struct {
	recipe *Recipe
	suite  string
	dir    string
	log    io.Writer
}

// build returns the path of the archive.
func (b *builder) build(ctx context.Context) (string, error) {
	var layers []string
	if len(b.recipe.Packages) > 0 {
		file, err := b.debian(ctx)
		if err != nil {
			return "", err
		}
		layers = append(layers, file)
	}
	own, err := b.overlay(ctx)
	if err != nil {
		return "", err
	}
	if own != "" {
		layers = append(layers, own)
	}
	return b.archive(layers)
}

// key is a digest of everything that the image depends on, except the state
// of Debian's archive.
func (b *builder) key() (string, error) {
	h := sha256.New()
	recipe, err := json.Marshal(b.recipe)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(h, "%s\n%s\n%s\n%s\n", format, b.suite, runtime.GOARCH, recipe)
	for _, p := range b.recipe.Programs {
		if err := hashFile(h, p.Source, func() (io.ReadCloser, error) { return content.Open(path.Join("src", p.Source)) }); err != nil {
			return "", err
		}
	}
	for _, f := range b.recipe.Files {
		if err := hashFile(h, f.Path, f.open); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func hashFile(w io.Writer, name string, open func() (io.ReadCloser, error)) error {
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(w, "%s\n", name)
	_, err = io.Copy(w, f)
	return err
}

func (f *File) open() (io.ReadCloser, error) {
	if f.Host != "" {
		return os.Open(f.Host)
	}
	return content.Open(path.Join("files", f.Source))
}

// suite is the Debian release of this machine.
func suite() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("find Debian release: %w", err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			fields[k] = strings.Trim(v, `"`)
		}
	}
	if fields["ID"] != "debian" || fields["VERSION_CODENAME"] == "" {
		return "", fmt.Errorf("images with Debian packages are made on Debian; this is %s", fields["PRETTY_NAME"])
	}
	return fields["VERSION_CODENAME"], nil
}

// run runs a tool; what it prints shows in the error.
func run(ctx context.Context, stdout io.Writer, env []string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", argv[0], err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// lock waits until no other process makes the same image.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock image cache: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock image cache: %w", err)
	}
	return func() { f.Close() }, nil
}

// removeOthers deletes archives of earlier contents of a recipe.
func removeOthers(cache, name, keep string) {
	old, _ := filepath.Glob(filepath.Join(cache, name+"-????????????????.tar"))
	for _, file := range old {
		if file != keep {
			_ = os.Remove(file)
		}
	}
}
