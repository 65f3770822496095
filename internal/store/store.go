// Package store keeps what a server must not forget: results, nodes, join
// tokens, runs, the facts cache and the objects that agents upload.
//
// Everything lies in one data folder. Small values are key-value buckets of a
// NATS JetStream, which runs inside the process unless Config.URL names a
// cluster; objects are plain files named by their content. What a method has
// acknowledged by returning nil survives the loss of the process.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrNotFound is returned for a key that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrFull is returned when there is no room; nothing was kept then.
	ErrFull = errors.New("no space left in the data folder: free some, or raise the limit")
	// ErrLocked is returned when another process uses the data folder.
	ErrLocked = errors.New("data folder is in use by another confine-server")
)

const (
	// maxValue bounds one value of a bucket, in bytes.
	maxValue = 30 << 20
	// maxPayload is what the embedded server accepts in one message: maxValue
	// and room for headers.
	maxPayload = 32 << 20
	// maxKey bounds a key: it becomes part of a subject, and a longer one than
	// NATS takes ends the connection.
	maxKey = 512
	// reserve is the free disk space below which nothing more is accepted, so
	// that JetStream itself never meets a full disk, in bytes.
	reserve = 64 << 20
	// startLimit bounds the start of the embedded server.
	startLimit = 30 * time.Second
)

// Config says where a store lives.
type Config struct {
	// Dir is the data folder, made when missing.
	Dir string
	// URL of an external NATS cluster with JetStream; empty for the embedded
	// one. Objects are in Dir either way.
	URL string
	// MaxObjects bounds all objects together, in bytes; 32 GiB when 0.
	MaxObjects int64
	// MaxObject bounds one object, in bytes; 1 GiB when 0.
	MaxObject int64
	// MaxFacts bounds the facts cache, in bytes; 4 GiB when 0.
	MaxFacts int64
}

// Store is open storage. It is safe for concurrent use.
type Store struct {
	// Objects are the files that agents uploaded.
	Objects *Objects

	dir    string
	lock   *os.File
	server *server.Server // nil with an external cluster
	conn   *nats.Conn

	results, explanations, summaries, nodes, tokens, runs, facts jetstream.KeyValue
	factsStream                                                  jetstream.Stream
}

// Open opens the store in cfg.Dir. Only one process can have it open.
func Open(ctx context.Context, cfg Config) (s *Store, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("open store: name a data folder")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s = &Store{dir: cfg.Dir}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("open store %s: %w", cfg.Dir, err)
		}
	}()
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return s, err
	}
	if s.Objects, err = openObjects(filepath.Join(cfg.Dir, "objects"), cfg.MaxObjects, cfg.MaxObject); err != nil {
		return s, err
	}
	if err = s.connect(cfg); err != nil {
		return s, err
	}
	return s, s.openBuckets(ctx, cfg)
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, ErrLocked
	}
	return f, nil
}

// connect starts the embedded server, or dials the cluster. From here on both
// are the same to the rest of the package.
func (s *Store) connect(cfg Config) (err error) {
	if cfg.URL != "" {
		s.conn, err = nats.Connect(cfg.URL, nats.Name("confine-server"), nats.MaxReconnects(-1))
		return err
	}
	s.server, err = server.NewServer(&server.Options{
		ServerName:             "confine",
		DontListen:             true,
		JetStream:              true,
		StoreDir:               filepath.Join(cfg.Dir, "jetstream"),
		SyncAlways:             true,
		MaxPayload:             maxPayload,
		JetStreamMaxMemory:     1, // files only
		JetStreamMaxStore:      1 << 40,
		NoLog:                  true,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return err
	}
	s.server.Start()
	if !s.server.ReadyForConnections(startLimit) {
		return errors.New("start JetStream: it is not ready; is the data folder writable?")
	}
	s.conn, err = nats.Connect("", nats.InProcessServer(s.server), nats.Name("confine-server"))
	return err
}

func (s *Store) openBuckets(ctx context.Context, cfg Config) error {
	js, err := jetstream.New(s.conn)
	if err != nil {
		return err
	}
	maxFacts := cfg.MaxFacts
	if maxFacts <= 0 {
		maxFacts = 4 << 30
	}
	for _, b := range []struct {
		kv  *jetstream.KeyValue
		cfg jetstream.KeyValueConfig
	}{
		{&s.results, jetstream.KeyValueConfig{Bucket: "results", Compression: true}},
		{&s.explanations, jetstream.KeyValueConfig{Bucket: "explanations"}},
		{&s.summaries, jetstream.KeyValueConfig{Bucket: "summaries"}},
		{&s.nodes, jetstream.KeyValueConfig{Bucket: "nodes"}},
		{&s.tokens, jetstream.KeyValueConfig{Bucket: "tokens"}},
		{&s.runs, jetstream.KeyValueConfig{Bucket: "runs", TTL: 30 * 24 * time.Hour}},
		{&s.facts, jetstream.KeyValueConfig{Bucket: "facts", TTL: 90 * 24 * time.Hour, MaxBytes: maxFacts}},
	} {
		b.cfg.Storage = jetstream.FileStorage
		b.cfg.History = 1
		if *b.kv, err = js.CreateOrUpdateKeyValue(ctx, b.cfg); err != nil {
			return fmt.Errorf("open bucket %s: %w", b.cfg.Bucket, err)
		}
	}
	if s.factsStream, err = js.Stream(ctx, "KV_facts"); err != nil {
		return fmt.Errorf("open bucket facts: %w", err)
	}
	return nil
}

// Close releases everything. It may be called more than once.
func (s *Store) Close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
		s.server = nil
	}
	if s.lock != nil {
		_ = s.lock.Close()
		s.lock = nil
	}
}

// put keeps a value under key. revision < 0 replaces whatever is there, 0
// demands that there is nothing, and anything else that revision exactly.
func (s *Store) put(ctx context.Context, kv jetstream.KeyValue, key string, value []byte, revision int64) error {
	if len(key) > maxKey {
		return fmt.Errorf("a key of %d bytes is longer than the limit of %d", len(key), maxKey)
	}
	if len(value) > maxValue {
		return fmt.Errorf("%d bytes are more than the limit of %d", len(value), maxValue)
	}
	if err := checkSpace(s.dir, int64(len(value))); err != nil {
		return err
	}
	var err error
	switch {
	case revision < 0:
		_, err = kv.Put(ctx, key, value)
	case revision == 0:
		_, err = kv.Create(ctx, key, value)
	default:
		_, err = kv.Update(ctx, key, value, uint64(revision))
	}
	return translate(err)
}

func (s *Store) get(ctx context.Context, kv jetstream.KeyValue, key string) ([]byte, uint64, error) {
	if len(key) > maxKey {
		return nil, 0, ErrNotFound
	}
	entry, err := kv.Get(ctx, key)
	if err != nil {
		return nil, 0, translate(err)
	}
	return entry.Value(), entry.Revision(), nil
}

// each calls f with every key and value of a bucket.
func (s *Store) each(ctx context.Context, kv jetstream.KeyValue, f func(key string, value []byte) error) error {
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return translate(err)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-w.Updates():
			if !ok || entry == nil { // nil: all that was there has been seen
				return nil
			}
			if err := f(entry.Key(), entry.Value()); err != nil {
				return err
			}
		}
	}
}

func translate(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted) ||
		errors.Is(err, jetstream.ErrInvalidKey) {
		return ErrNotFound
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeInsufficientResources, codeMemoryExceeded, codeStorageExceeded, codeStoreFailed:
			return fmt.Errorf("%w (%w)", ErrFull, err)
		}
	}
	return err
}

// Error codes of JetStream's API that mean that there is no room.
const (
	codeInsufficientResources = 10023
	codeMemoryExceeded        = 10028
	codeStorageExceeded       = 10047
	codeStoreFailed           = 10077
)

// checkSpace refuses to write size bytes into dir when the disk is nearly
// full.
func checkSpace(dir string, size int64) error {
	var fsStat syscall.Statfs_t
	if err := syscall.Statfs(dir, &fsStat); err != nil {
		return fmt.Errorf("look at free space: %w", &fs.PathError{Op: "statfs", Path: dir, Err: err})
	}
	free := int64(fsStat.Bavail) * fsStat.Bsize
	if free-size < reserve {
		return fmt.Errorf("%w (%d MiB free in %s)", ErrFull, free>>20, dir)
	}
	return nil
}
