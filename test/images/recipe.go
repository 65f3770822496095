// Package images makes the container images that tests and the demo run, as
// OCI archives from Debian packages and from small programs of our own. No
// registry is asked. An archive is made once for each content of its recipe
// and kept in a cache folder.
package images

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/yaml"
)

//go:embed recipes files src
var content embed.FS

// Recipe is what an image is made of, in this order.
type Recipe struct {
	// Name is the full reference that the archive states.
	Name string `json:"name"`
	// Foreign has the image say that it is for another machine than this one.
	Foreign bool `json:"foreign,omitempty"`
	// Packages are Debian packages, installed on a minimal Debian of the
	// release of this machine; none makes an image from scratch.
	Packages []string `json:"packages"`
	// Setup is a shell script that runs as root in the Debian root afterwards.
	Setup string `json:"setup"`
	// Drop holds path.Match patterns of files of the Debian root that are left
	// out of the image; Keep takes exceptions from it. A pattern that matches a
	// folder matches what is below it.
	Drop []string `json:"drop"`
	Keep []string `json:"keep"`
	// Folders are made, with mode 0755, or 1777 where the name is "tmp".
	Folders []string `json:"folders"`
	// Programs are compiled for the image.
	Programs []Program `json:"programs"`
	// Files are put over what is there.
	Files []File `json:"files"`
	// Links are symbolic links: path in the image to target.
	Links map[string]string `json:"links"`
	// Config is the image's own configuration.
	Config v1.Config `json:"config"`
}

// Program is a source file of this package and the command that compiles it.
type Program struct {
	// Path in the image, without leading slash.
	Path string `json:"path"`
	// Source is a file of folder src.
	Source string `json:"source"`
	// Command compiles $SOURCE into $OUTPUT.
	Command []string `json:"command"`
	// Env is added to the environment of the command.
	Env []string `json:"env"`
}

// File is one file of the image: from folder files, or from this machine.
type File struct {
	Path string `json:"path"`
	// Source is a file of folder files.
	Source string `json:"source"`
	// Host is an absolute path of this machine.
	Host string `json:"host"`
	// Executable chooses mode 0755 over 0644.
	Executable bool `json:"executable"`
}

// Names returns the names of all recipes, sorted.
func Names() ([]string, error) {
	entries, err := content.ReadDir("recipes")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names, nil
}

// Load reads the recipe of a name and checks it.
func Load(name string) (*Recipe, error) {
	data, err := content.ReadFile(path.Join("recipes", name+".yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		names, _ := Names()
		return nil, fmt.Errorf("there is no recipe %q; there are: %s", name, strings.Join(names, ", "))
	}
	if err != nil {
		return nil, err
	}
	var r Recipe
	if err := yaml.UnmarshalStrict(data, &r); err != nil {
		return nil, fmt.Errorf("read recipe %s: %w", name, err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("recipe %s: %w", name, err)
	}
	return &r, nil
}

func (r *Recipe) check() error {
	if r.Name == "" {
		return errors.New("it has no name")
	}
	if len(r.Packages) == 0 && (r.Setup != "" || len(r.Drop)+len(r.Keep) > 0) {
		return errors.New("setup, drop and keep need packages")
	}
	for _, p := range append(slices.Clone(r.Drop), r.Keep...) {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	for _, f := range r.Files {
		if (f.Source == "") == (f.Host == "") {
			return fmt.Errorf("file %s: want either source or host", f.Path)
		}
	}
	return nil
}

// leaves reports whether the image lacks this file of the Debian root. name
// has no leading slash.
func (r *Recipe) leaves(name string) bool {
	return matches(r.Drop, name) && !matches(r.Keep, name)
}

// matches reports whether a pattern matches name or a folder above it.
func matches(patterns []string, name string) bool {
	for ; name != "." && name != ""; name = path.Dir(name) {
		for _, p := range patterns {
			if ok, _ := path.Match(p, name); ok {
				return true
			}
		}
	}
	return false
}
