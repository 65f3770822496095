package agent

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"io/fs"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of one lookup.
const (
	maxLookupPaths = 4096
	// maxContent is the largest file whose content is sent along, in bytes.
	maxContent = 64 << 10
	// maxReply bounds names and contents of one reply, in bytes; gRPC's
	// receivers take 4 MiB.
	maxReply = 3 << 20
)

// lookup answers for paths inside the run's root.
func (r *run) lookup(ctx context.Context, c *confinev1.LookupCommand) {
	reply := &confinev1.LookupReply{RequestId: c.GetRequestId()}
	root := r.heldRoot()
	room := maxReply
	for i, path := range c.GetPaths() {
		entry := &confinev1.LookupEntry{Path: path}
		reply.Entries = append(reply.Entries, entry)
		switch {
		case root == nil:
			entry.Error = "the container has not been observed yet"
		case i >= maxLookupPaths:
			entry.Error = "too many paths in one request"
		default:
			lookupOne(ctx, root, entry, &room)
		}
	}
	if ctx.Err() != nil {
		return
	}
	r.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_LookupReply{LookupReply: reply}})
}

func (r *run) heldRoot() rootfs.Root {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.root == nil {
		return nil
	}
	return r.root
}

// lookupOne fills in one entry. room is what is left of the reply.
func lookupOne(ctx context.Context, root rootfs.Root, e *confinev1.LookupEntry, room *int) {
	found, err := root.Lookup(ctx, e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		e.Error = err.Error()
		return
	}
	e.Resolved, e.Mode = found.Path, uint32(found.Mode.Perm())
	switch found.Kind {
	case rootfs.KindFile:
		e.Type = "file"
		lookupFile(ctx, root, e, room)
	case rootfs.KindDir:
		e.Type = "dir"
		names, err := root.ReadDir(ctx, found.Path)
		if err != nil {
			e.Error = err.Error()
			return
		}
		size := 0
		for _, n := range names {
			size += len(n) + 2
		}
		if size > *room {
			e.Error = "the folder has too many names for one reply"
			return
		}
		*room -= size
		e.Names = names
	default:
		e.Type = "other"
	}
}

func lookupFile(ctx context.Context, root rootfs.Root, e *confinev1.LookupEntry, room *int) {
	sum, err := root.Digest(ctx, e.Resolved)
	if err != nil {
		e.Error = err.Error()
		return
	}
	f, err := root.Open(ctx, e.Resolved)
	if err != nil {
		e.Error = err.Error()
		return
	}
	defer f.Close()
	e.Sha256, e.Size = sum, uint64(f.Size())
	if f.Size() > maxContent || int(f.Size()) > *room {
		return // the server asks for an upload when it needs it
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil || bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return
	}
	*room -= len(b)
	e.Content = b
}
