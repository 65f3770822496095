// Command goserver is the server of a test image: it answers over HTTP, writes
// and reads files, starts goroutines, and stops in good order on SIGTERM.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("/", hello)
	mux.HandleFunc("/file", file)
	mux.HandleFunc("/parallel", parallel)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
	})
	log.Println("serving on", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	log.Println("stopped")
}

func hello(w http.ResponseWriter, r *http.Request) {
	host, err := os.Hostname()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "hello from %s at %s\n", host, time.Now().Format(time.RFC3339))
}

// file writes what it was sent to a file, reads it back and removes it.
func file(w http.ResponseWriter, r *http.Request) {
	dir, err := os.MkdirTemp("", "goserver-")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.RemoveAll(dir)
	data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "data"), data, 0o600)
	}
	if err == nil {
		data, err = os.ReadFile(filepath.Join(dir, "data"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "%x\n", sha256.Sum256(data))
}

// parallel keeps several threads busy.
func parallel(w http.ResponseWriter, _ *http.Request) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			sum := sha256.Sum256([]byte{byte(i)})
			for range 20000 {
				sum = sha256.Sum256(sum[:])
			}
			time.Sleep(time.Millisecond)
		})
	}
	wg.Wait()
	fmt.Fprintln(w, "done")
}
