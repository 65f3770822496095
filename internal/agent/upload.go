package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/pkg/rootfs"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of uploads.
const (
	uploadChunk = 1 << 20 // bytes
	// maxObject is the largest object, in bytes; larger files are reported.
	maxObject = 1 << 30
	// maxObjects bounds the objects of one command.
	maxObjects = 10_000
	// uploadBatch is how many objects one FindMissing asks about.
	uploadBatch = 1000
	// uploadParallel is how many objects are sent at once.
	uploadParallel = 3
	// uploadTries is how often an upload that breaks off is resumed.
	uploadTries = 5
)

// upload makes sure that the server has the objects of a command.
func (r *run) upload(ctx context.Context, c *confinev1.UploadCommand) {
	u := &uploader{run: r, root: r.heldRoot(), reply: &confinev1.UploadReply{RequestId: c.GetRequestId()}}
	objects := c.GetObjects()
	if len(objects) > maxObjects {
		for _, o := range objects[maxObjects:] {
			u.failed(o, errors.New("too many objects in one request"))
		}
		objects = objects[:maxObjects]
	}
	for len(objects) > 0 && ctx.Err() == nil {
		n := min(len(objects), uploadBatch)
		u.batch(ctx, objects[:n])
		objects = objects[n:]
	}
	if ctx.Err() != nil {
		return
	}
	r.progress("upload", true, int(u.reply.Uploaded), 0, "%d objects, %d KiB", u.reply.Uploaded, u.reply.Bytes>>10)
	r.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_UploadReply{UploadReply: u.reply}})
}

// uploader is one UploadCommand being carried out.
type uploader struct {
	run  *run
	root rootfs.Root

	mu    sync.Mutex
	reply *confinev1.UploadReply
}

func (u *uploader) failed(o *confinev1.ObjectRef, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reply.Failed = append(u.reply.Failed, &confinev1.Incomplete{
		Kind: "unreadable-object", Object: o.GetPath(), Detail: "cannot be sent to the server: " + err.Error(),
	})
}

// batch uploads what the server lacks of the objects. A break of the
// connection is waited out; the server says where to go on.
func (u *uploader) batch(ctx context.Context, objects []*confinev1.ObjectRef) {
	bySum := map[string]*confinev1.ObjectRef{}
	for _, o := range objects {
		bySum[o.GetSha256()] = o
	}
	sentBefore := map[string]bool{}
	for try := 1; ; try++ {
		err := u.pass(ctx, objects, bySum, sentBefore)
		if err == nil || ctx.Err() != nil {
			return
		}
		if try == uploadTries {
			for _, o := range objects {
				u.failed(o, err)
			}
			return
		}
		select {
		case <-time.After(time.Duration(try) * time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// pass asks once what is missing and sends it. Its error is one that another
// pass may cure.
func (u *uploader) pass(ctx context.Context, objects []*confinev1.ObjectRef, bySum map[string]*confinev1.ObjectRef, done map[string]bool) error {
	missing, err := u.run.server.FindMissing(ctx, &confinev1.FindMissingRequest{Objects: objects})
	if err != nil {
		return fmt.Errorf("ask for missing objects: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadParallel)
	for _, m := range missing.GetMissing() {
		o := bySum[m.GetSha256()]
		if o == nil || done[o.GetSha256()] {
			continue
		}
		g.Go(func() error {
			n, err := u.send(ctx, o, m.GetOffset())
			if transient(err) {
				return err
			}
			u.mu.Lock()
			done[o.GetSha256()] = true
			if err == nil {
				u.reply.Uploaded++
				u.reply.Bytes += n
			}
			sent := u.reply.Uploaded
			u.mu.Unlock()
			if err != nil {
				u.failed(o, err)
				return nil
			}
			u.run.progress("upload", false, int(sent), len(missing.GetMissing()), "%s", o.GetPath())
			return nil
		})
	}
	return g.Wait()
}

// transient reports whether trying again can help.
func transient(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Aborted, codes.ResourceExhausted:
		return true
	default:
		return false
	}
}

// send uploads one object from offset, checking that the file still is what
// was asked for, and returns the bytes sent.
func (u *uploader) send(ctx context.Context, o *confinev1.ObjectRef, offset uint64) (uint64, error) {
	if u.root == nil {
		return 0, errors.New("the container has not been observed yet")
	}
	f, err := u.root.Open(ctx, o.GetPath())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size := uint64(f.Size())
	switch {
	case size > maxObject:
		return 0, fmt.Errorf("it has %d bytes, more than the limit of %d", size, maxObject)
	case size != o.GetSize():
		return 0, fmt.Errorf("it has %d bytes now, and had %d when it was seen", size, o.GetSize())
	case offset > size:
		return 0, fmt.Errorf("the server wants to go on at %d of %d bytes", offset, size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, int64(offset))); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // breaks the stream off when the content is wrong
	s, err := u.run.server.Upload(ctx)
	if err != nil {
		return 0, err
	}
	first := o
	for buf, at := make([]byte, uploadChunk), offset; ; {
		n := min(uint64(len(buf)), size-at)
		if _, err := io.ReadFull(io.NewSectionReader(f, int64(at), int64(n)), buf[:n]); err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		h.Write(buf[:n])
		last := at+n == size
		if last && hex.EncodeToString(h.Sum(nil)) != o.GetSha256() {
			return 0, errors.New("its content changed since it was seen")
		}
		// A fresh slice for each message: gRPC may keep it after Send.
		m := &confinev1.UploadRequest{Object: first, Offset: at, Data: append([]byte(nil), buf[:n]...)}
		if err := s.Send(m); err != nil {
			if errors.Is(err, io.EOF) {
				_, err = s.CloseAndRecv()
			}
			return 0, err
		}
		first = nil
		at += n
		if last {
			break
		}
	}
	if _, err := s.CloseAndRecv(); err != nil {
		return 0, err
	}
	return size - offset, nil
}
