package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// seed puts a process and its descendants in the scope. The programs are
// attached by then: a process that forks after it was put in passes it on
// itself, and those that were forked before are found here.
func (w *watch) seed(pid int32) error {
	if pid == 0 {
		return nil
	}
	queue := []uint32{uint32(pid)}
	seen := map[uint32]bool{uint32(pid): true}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if err := w.objs.Seeds.Update(next, uint8(1), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("add process %d to the scope: %w", next, err)
		}
		for _, child := range children(next) {
			if !seen[child] {
				seen[child] = true
				queue = append(queue, child)
			}
		}
	}
	return nil
}

// children lists the child processes of all threads of a process; none when
// it has ended.
func children(pid uint32) []uint32 {
	var all []uint32
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, word := range strings.Fields(string(text)) {
			if n, err := strconv.ParseUint(word, 10, 32); err == nil {
				all = append(all, uint32(n))
			}
		}
	}
	return all
}
