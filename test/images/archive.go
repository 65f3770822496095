package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// archive packs layers as an OCI archive.
func (b *builder) archive(layers []string) (string, error) {
	img, err := b.image(layers)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, "oci")
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	// The name that containerd imports it under.
	name := layout.WithAnnotations(map[string]string{"io.containerd.image.name": b.recipe.Name})
	if err := index.AppendImage(img, name); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	file := filepath.Join(b.dir, "image.tar")
	if err := pack(dir, file); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	return file, nil
}

func (b *builder) image(layers []string) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, file := range layers {
		l, err := tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, fmt.Errorf("read layer: %w", err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, fmt.Errorf("add layer: %w", err)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Config = "linux", b.recipe.architecture(), b.recipe.Config
	cfg.Created = v1.Time{Time: time.Unix(epoch, 0).UTC()}
	return mutate.ConfigFile(img, cfg)
}

// architecture is what the image says that it is for.
func (r *Recipe) architecture() string {
	switch {
	case !r.Foreign:
		return runtime.GOARCH
	case runtime.GOARCH == "arm64":
		return "amd64"
	}
	return "arm64"
}

// pack makes a tar file of a folder.
func pack(dir, file string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := tar.NewWriter(f)
	root := os.DirFS(dir)
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		in, err := root.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: time.Unix(epoch, 0)}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return err
	})
	return errors.Join(err, out.Close())
}
