package agent_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// busybox is a static program that every test image is made of.
const busybox = "/bin/busybox"

// testImage is an image to be made.
type testImage struct {
	name string
	// files are copied from the node: path in the image to path on the node.
	files map[string]string
	// scripts: path in the image to content.
	scripts map[string]string
	// links: path in the image to target.
	links  map[string]string
	config v1.Config
}

// busyboxImage has a shell and the usual names.
func busyboxImage(ref string, config v1.Config) testImage {
	img := testImage{name: ref, files: map[string]string{"bin/busybox": busybox}, links: map[string]string{}, config: config}
	for _, n := range []string{"sh", "sleep", "nc", "cat", "ls", "true", "false", "mkdir", "httpd", "rm", "cp"} {
		img.links["bin/"+n] = "busybox"
	}
	return img
}

// load makes the image and imports it.
func (i testImage) load(t *testing.T, d *daemon) {
	t.Helper()
	if _, err := os.Stat(busybox); err != nil {
		t.Fatalf("test images are made of %s: install busybox-static", busybox)
	}
	content, err := i.layer()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Config = "linux", "amd64", i.config
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(i.name, name.WithDefaultRegistry("docker.io"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(file, ref, img); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, ctx := d.client(t)
	if _, err := c.Import(ctx, f, containerd.WithIndexName(ref.Name())); err != nil {
		t.Fatalf("import image: %v", err)
	}
}

func (i testImage) layer() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"bin/", "etc/", "tmp/", "proc/", "dev/", "sys/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	put := func(name string, content []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	for name, src := range i.files {
		b, err := os.ReadFile(src)
		if err != nil {
			return nil, err
		}
		if err := put(name, b); err != nil {
			return nil, err
		}
	}
	for name, text := range i.scripts {
		if err := put(name, []byte(text)); err != nil {
			return nil, err
		}
	}
	for name, target := range i.links {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
