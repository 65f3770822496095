package store_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/confinehq/confine/internal/store"
)

func digest(content []byte) store.Digest {
	sum := sha256.Sum256(content)
	d, err := store.ParseDigest(hex.EncodeToString(sum[:]))
	if err != nil {
		panic(err)
	}
	return d
}

func TestParseDigest(t *testing.T) {
	good := strings.Repeat("0a", 32)
	if d, err := store.ParseDigest(good); err != nil || d.String() != good {
		t.Errorf("%v, %v", d, err)
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good), "../" + good[3:], strings.Repeat("g", 64), strings.Repeat("x", 5000)} {
		if d, err := store.ParseDigest(bad); err == nil || len(err.Error()) > 200 {
			t.Errorf("ParseDigest(%.80q) = %v, %v", bad, d, err)
		}
	}
}

func upload(o *store.Objects, d store.Digest, size, offset int64, data []byte) error {
	u, err := o.Begin(d, size, offset)
	if err != nil {
		return err
	}
	defer u.Abort()
	if _, err := u.Write(data); err != nil {
		return err
	}
	return u.Commit()
}

func TestUpload(t *testing.T) {
	o := open(t, store.Config{MaxObject: 1000}).Objects
	content := []byte("the content of an object")
	d, size := digest(content), int64(len(content))
	for name, c := range map[string]struct {
		size, offset int64
		data         []byte
		want         error
	}{
		"another content": {size, 0, bytes.Repeat([]byte("x"), int(size)), store.ErrDigest},
		"too much":        {size, 0, append(content, 'x'), store.ErrDigest},
		"too little":      {size, 0, content[:3], store.ErrOffset},
		"a hole":          {size, 10, content[10:], store.ErrOffset},
		"negative offset": {size, -1, content, store.ErrOffset},
		"too large":       {1001, 0, nil, store.ErrTooLarge},
		"negative size":   {-1, 0, nil, store.ErrTooLarge},
	} {
		if err := upload(o, d, c.size, c.offset, c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if have, _ := o.Has(d); have {
			t.Fatalf("%s: the object is there", name)
		}
		if _, err := o.Open(d); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("%s: opened: %v", name, err)
		}
		// A clean start for the next.
		if err := upload(o, d, size, 0, content[:0]); !errors.Is(err, store.ErrOffset) {
			t.Fatal(err)
		}
	}
	if err := upload(o, d, size, 0, content); err != nil {
		t.Fatal(err)
	}
	f, err := o.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, content) || f.Size() != size {
		t.Errorf("read %q of %d, %v", got, f.Size(), err)
	}
}

func TestUploadResumes(t *testing.T) {
	o := open(t, store.Config{}).Objects
	content := bytes.Repeat([]byte("0123456789"), 100)
	d := digest(content)
	u, err := o.Begin(d, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(content[:600]); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Begin(d, 1000, 0); !errors.Is(err, store.ErrBusy) {
		t.Errorf("a second upload of the same: %v", err)
	}
	u.Abort()
	u.Abort()
	if have, n := o.Has(d); have || n != 600 {
		t.Fatalf("%v, %d bytes", have, n)
	}
	// It may go on earlier than it ended.
	if err := upload(o, d, 1000, 500, content[500:]); err != nil {
		t.Fatal(err)
	}
	if have, _ := o.Has(d); !have {
		t.Error("not there after the rest")
	}
}

func TestEviction(t *testing.T) {
	o := open(t, store.Config{MaxObjects: 3000}).Objects
	object := func(b byte) []byte { return bytes.Repeat([]byte{b}, 1000) }
	has := func(b byte) bool { have, _ := o.Has(digest(object(b))); return have }
	for _, b := range []byte("abc") {
		if _, err := o.Put(object(b)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := o.Open(digest(object('a'))) // in use
	if err != nil {
		t.Fatal(err)
	}
	release := o.Pin(digest(object('b'))) // needed soon
	if _, err := o.Put(object('d')); err != nil {
		t.Fatal(err)
	}
	if !has('a') || !has('b') || has('c') || !has('d') {
		t.Errorf("after d: a %v, b %v, c %v, d %v; want c gone", has('a'), has('b'), has('c'), has('d'))
	}
	pinned := o.Pin(digest(object('d')))
	if _, err := o.Put(object('e')); !errors.Is(err, store.ErrFull) {
		t.Errorf("all in use: %v, want ErrFull", err)
	}
	release()
	release()
	if _, err := o.Put(object('e')); err != nil || has('b') {
		t.Errorf("after b was released: %v, b %v", err, has('b'))
	}
	pinned()
	f.Close()
}
