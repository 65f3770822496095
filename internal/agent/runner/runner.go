// Package runner runs containers under containerd for one run at a time each:
// it resolves images, creates and starts containers that it marks as its own,
// and removes every trace of them, also of those that an earlier agent left.
package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
)

// Labels on everything that is made in containerd.
const (
	// labelOwner names the agent (node and state folder) that made it.
	labelOwner = "confine/owner"
	// labelRun names the run.
	labelRun = "confine/run"
)

// prefix begins the name of every container, snapshot and lease.
const prefix = "confine-"

// leaseTime bounds how long content stays when an agent never comes back.
const leaseTime = 24 * time.Hour

// defaultNamespace is used when a run names none.
const defaultNamespace = "default"

// Config says which containerd to use.
type Config struct {
	// Socket of containerd.
	Socket string
	// Namespace used when a run names none.
	Namespace string
	// Node is the agent's name.
	Node string
	// StateDir holds FIFOs and generated files; it belongs to this agent.
	StateDir string
	// RegistryHosts is a folder of hosts.toml files as containerd's own.
	RegistryHosts string
	// PidsLimit bounds the processes and threads of a container; half of what
	// the node can have, at most 32768, when it is 0.
	PidsLimit int64
}

// Runner is safe for concurrent use.
type Runner struct {
	cfg    Config
	client *containerd.Client
	owner  string
}

// New connects lazily: containerd may be down and come later.
func New(cfg Config) (*Runner, error) {
	if cfg.Namespace == "" {
		cfg.Namespace = defaultNamespace
	}
	if cfg.PidsLimit == 0 {
		cfg.PidsLimit = defaultPidsLimit()
	}
	dir, err := filepath.Abs(cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("resolve state folder: %w", err)
	}
	cfg.StateDir = dir
	client, err := containerd.New(cfg.Socket, containerd.WithDefaultNamespace(cfg.Namespace), containerd.WithTimeout(5*time.Second))
	if err != nil {
		return nil, fmt.Errorf("open containerd client: %w", err)
	}
	sum := sha256.Sum256([]byte(cfg.Node + "\x00" + dir))
	return &Runner{cfg: cfg, client: client, owner: hex.EncodeToString(sum[:16])}, nil
}

// defaultPidsLimit leaves a node enough processes to go on when a container
// makes as many as it can.
func defaultPidsLimit() int64 {
	const most = 32768
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return most / 2
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n < 2 {
		return most / 2
	}
	return min(most, n/2)
}

// PidsLimit is how many processes and threads a container may have.
func (r *Runner) PidsLimit() int64 { return r.cfg.PidsLimit }

// Close closes the connection.
func (r *Runner) Close() error { return r.client.Close() }

// Version returns the version of the containerd daemon.
func (r *Runner) Version(ctx context.Context) (string, error) {
	v, err := r.client.Version(ctx)
	if err != nil {
		return "", r.daemon(err)
	}
	return v.Version, nil
}

// daemon explains an error of containerd that means that it isn't there.
func (r *Runner) daemon(err error) error {
	if err == nil {
		return nil
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	if fault.CodeOf(err) == codes.Unavailable {
		return fault.New(codes.Unavailable, "containerd at %s does not answer; start it (systemctl start containerd) or give the agent its socket with --containerd: %w", r.cfg.Socket, err)
	}
	return err
}

// Gone reports whether err means that containerd does not answer.
func Gone(err error) bool { return fault.CodeOf(err) == codes.Unavailable }

func (r *Runner) namespace(ctx context.Context, name string) context.Context {
	if name == "" {
		name = r.cfg.Namespace
	}
	return namespaces.WithNamespace(ctx, name)
}

// runDir is the folder of generated files of one run.
func (r *Runner) runDir(runID string) string {
	return filepath.Join(r.cfg.StateDir, "runs", runID)
}

// hold returns a context whose new resources in containerd belong to the
// lease of the run. The lease is made when it doesn't exist yet.
func (r *Runner) hold(ctx context.Context, runID string) (context.Context, error) {
	id := prefix + runID
	_, err := r.client.LeasesService().Create(ctx,
		leases.WithID(id),
		leases.WithLabels(map[string]string{labelOwner: r.owner, labelRun: runID}),
		leases.WithExpiration(leaseTime))
	if err != nil && !exists(err) {
		return nil, r.daemon(fmt.Errorf("create lease %s: %w", id, err))
	}
	return leases.WithLease(ctx, id), nil
}

// checkID makes sure that a run's id is fit for names in containerd and in
// the file system.
func checkID(runID string) error {
	if runID == "" || len(runID) > 48 || strings.Trim(runID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" || runID[0] == '-' {
		return fault.New(codes.InvalidArgument, "run id %q: want 1 to 48 letters, digits and inner hyphens", runID)
	}
	return nil
}

// Folder makes a folder of a run that goes away with it, and returns its path.
func (r *Runner) Folder(runID, name string) (string, error) {
	if err := checkID(runID); err != nil {
		return "", err
	}
	dir := filepath.Join(r.runDir(runID), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create folder of the run: %w", err)
	}
	return dir, nil
}

func (r *Runner) writeRunFile(runID, name, content string) (string, error) {
	dir := r.runDir(runID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create folder of the run: %w", err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}
