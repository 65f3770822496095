package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// maxAncestors bounds how far up a process's parents are followed.
const maxAncestors = 256

// Scope tells the processes of a confine.v1.Scope from others.
type Scope struct {
	pid       int32
	mount     uint64 // mount namespace, 0 for none
	pids      uint64 // PID namespace
	cgroup    string // path in the cgroup v2 hierarchy, "" for none
	cgroupDir string // the same as a folder
	ownMount  uint64
	every     bool // every event is to be delivered, repeated ones too
}

// NewScope prepares a scope. It fails when the scope selects nothing that can
// be looked up in /proc.
func NewScope(s *confinev1.Scope) (*Scope, error) {
	out := &Scope{pid: s.GetPid(), mount: s.GetMountNamespace(), pids: s.GetPidNamespace(), every: s.GetEveryEvent()}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
		return nil, fmt.Errorf("find the own mount namespace: %w", err)
	}
	out.ownMount = st.Ino
	if id := s.GetCgroupId(); id != 0 {
		dir, path, err := findCgroup(s.GetPid(), id)
		if err != nil {
			return nil, err
		}
		out.cgroupDir, out.cgroup = dir, path
	}
	if out.pid <= 0 && out.mount == 0 && out.pids == 0 && out.cgroup == "" {
		return nil, errors.New("give a cgroup id, a process or a namespace")
	}
	return out, nil
}

// CgroupDir is the folder of the scope's cgroup, "" when it has none.
func (s *Scope) CgroupDir() string { return s.cgroupDir }

// PID is the process that the scope names, 0 when it names none.
func (s *Scope) PID() int32 { return s.pid }

// Has reports whether a process is in the scope. Its error is ErrGone when
// that can't be told any more.
func (s *Scope) Has(p *Process) (bool, error) {
	mount, err := p.Namespace("mnt")
	if err != nil {
		return false, err
	}
	if s.mount != 0 && mount == s.mount {
		return true, nil
	}
	if s.mount != 0 && mount == s.ownMount {
		// A runtime on its way into the container isn't there yet.
		return false, nil
	}
	if s.pids != 0 {
		if ns, err := p.Namespace("pid"); err != nil || ns == s.pids {
			return err == nil, err
		}
	}
	if s.cgroup != "" {
		path, err := p.Cgroup()
		if err != nil {
			return false, err
		}
		if path == s.cgroup || strings.HasPrefix(path, s.cgroup+"/") {
			return true, nil
		}
	}
	return s.descends(p)
}

// descends follows the parents of a process up to the scope's own.
func (s *Scope) descends(p *Process) (bool, error) {
	if s.pid <= 0 {
		return false, nil
	}
	if p.PID == s.pid {
		return true, nil
	}
	parent, err := p.Parent()
	if err != nil {
		return false, err
	}
	for range maxAncestors {
		if parent == s.pid {
			return true, nil
		}
		if parent <= 1 {
			return false, nil
		}
		q, err := Open(parent)
		if err != nil {
			return false, nil //nolint:nilerr // an ancestor has ended: its children belong to init now
		}
		parent, err = q.Parent()
		q.Close()
		if err != nil {
			return false, nil //nolint:nilerr // as above
		}
	}
	return false, nil
}

// Processes lists the processes that are in the scope now, as far as they
// live long enough to be looked at.
func (s *Scope) Processes() ([]int32, error) {
	if s.cgroup != "" && s.mount == 0 && s.pids == 0 {
		return s.cgroupProcesses()
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []int32
	for _, e := range entries {
		pid, err := strconv.ParseInt(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		p, err := Open(int32(pid))
		if err != nil {
			continue
		}
		if ok, err := s.Has(p); err == nil && ok {
			out = append(out, p.PID)
		}
		p.Close()
	}
	return out, nil
}

func (s *Scope) cgroupProcesses() ([]int32, error) {
	var out []int32
	err := filepath.WalkDir(s.cgroupDir, func(dir string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil //nolint:nilerr // a cgroup that was removed meanwhile holds nothing
		}
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		for line := range strings.Lines(string(b)) {
			if pid, err := strconv.ParseInt(strings.TrimSpace(line), 10, 32); err == nil && pid > 0 {
				out = append(out, int32(pid))
			}
		}
		return nil
	})
	return out, err
}

// findCgroup finds the folder of a cgroup by its inode number: that of a
// process that is in it, or by looking at all.
func findCgroup(pid int32, id uint64) (dir, path string, err error) {
	mounts := []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
	if pid > 0 {
		if p, err := Open(pid); err == nil {
			path, err = p.Cgroup()
			p.Close()
			for _, m := range mounts {
				if dir := filepath.Join(m, path); err == nil && path != "" && isCgroup(dir, id) {
					return dir, path, nil
				}
			}
		}
	}
	for _, m := range mounts {
		found := errors.New("found")
		err := filepath.WalkDir(m, func(at string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return nil //nolint:nilerr // removed meanwhile
			}
			var fs unix.Statfs_t
			if at == m && (unix.Statfs(at, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC) {
				return filepath.SkipAll
			}
			if isCgroup(at, id) {
				dir, path = at, strings.TrimPrefix(at, m)
				return found
			}
			return nil
		})
		if errors.Is(err, found) {
			return dir, path, nil
		}
	}
	return "", "", fmt.Errorf("no cgroup has the id %d", id)
}

func isCgroup(dir string, id uint64) bool {
	var st unix.Stat_t
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && unix.Stat(dir, &st) == nil && st.Ino == id
}
