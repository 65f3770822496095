// Package cgroup removes the control groups that a container runtime left when
// it, or who was to call it, was killed.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the name of every group that is ours.
const prefix = "confine-"

// busyTime is how long a group may take to lose its last process.
const busyTime = 2 * time.Second

// Remove deletes a group and those inside of it from every hierarchy. The path
// is that of linux.cgroupsPath in an OCI specification; groups that aren't
// Confine's, and what systemd manages ("slice:prefix:name"), are left alone.
// It is no error when there is none.
func Remove(path string) error {
	path = filepath.Clean("/" + path)
	if !strings.HasPrefix(filepath.Base(path), prefix) || strings.Contains(path, ":") {
		return nil
	}
	mounts, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		errs = append(errs, removeTree(filepath.Join(m, path)))
	}
	return errors.Join(errs...)
}

// hierarchies returns where groups are mounted.
func hierarchies() ([]string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		// "source target type options ..."
		if fields := strings.Fields(s.Text()); len(fields) > 2 && (fields[2] == "cgroup" || fields[2] == "cgroup2") {
			out = append(out, fields[1])
		}
	}
	return out, s.Err()
}

// removeTree removes folders from the innermost to dir; the files in them are
// the kernel's and go with them.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for control groups: %w", err)
	}
	for _, d := range slices.Backward(dirs) {
		if err := removeOne(d); err != nil {
			return fmt.Errorf("remove control group %s: %w", d, err)
		}
	}
	return nil
}

func removeOne(dir string) error {
	for end := time.Now().Add(busyTime); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}
