package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/runner"
	"github.com/confinehq/confine/internal/storm"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// stormDir is where a container sees the storm's files.
const stormDir = "/.confine-storm"

// stormFile reports whether a name is one of a file that a storm of ours
// executes, in any container or on the node: confine-RUN-c7-n3.
func stormFile(name string) bool {
	words := strings.Split(name, "-")
	n := len(words)
	return n >= 4 && words[0] == "confine" && numbered(words[n-2], "cn") && numbered(words[n-1], "nlth")
}

// numbered reports whether a word is one of the letters and a number.
func numbered(word, letters string) bool {
	return len(word) > 1 && strings.ContainsRune(letters, rune(word[0])) && strings.Trim(word[1:], "0123456789") == ""
}

// storms are those of one round: one in its container, one on the node.
type storms struct {
	// inside is what the container executes, nil when nothing; mark is true
	// when that is one file, once, which tells the container from others.
	inside *storm.Plan
	mark   bool
	folder string // of inside, on the node
	truth  *storm.Truth
	// left is true when the container had ended before its mark.
	left bool

	node       *storm.Plan
	nodeFolder string
	command    *exec.Cmd
	output     bytes.Buffer
	nodeTruth  *storm.Truth
}

// prepareStorms makes the files of a round's storms. Without a storm, and with
// several containers at once, each executes a file of its own.
func (s *stressTest) prepareStorms(index uint32) (*storms, error) {
	out := &storms{}
	ask := s.ask.GetStorm()
	if ask == nil && s.parallel() == 1 {
		return out, nil
	}
	plan := storm.Default(stormDir, fmt.Sprintf("confine-%s-c%d", s.id, index))
	plan.Rate, plan.Time = ask.GetRate(), s.stormTime()
	if ask == nil {
		out.mark = true
		plan.Count, plan.Names, plan.Longs, plan.Depth, plan.Threads = 1, 1, 0, 0, 0
	}
	out.inside = &plan
	var err error
	if out.folder, err = s.stormFolder(plan, fmt.Sprintf("storm-c%d", index)); err != nil || ask == nil {
		return out, err
	}
	node := storm.Default("", fmt.Sprintf("confine-%s-n%d", s.id, index))
	// All rounds together storm the node at the rate that was asked for.
	node.Rate, node.Time = ask.GetRate(), plan.Time
	if node.Rate > 0 {
		node.Rate = max(1, node.Rate/uint32(s.parallel()))
	}
	if out.nodeFolder, err = s.agent.runner.Folder(s.id, fmt.Sprintf("storm-n%d", index)); err != nil {
		return nil, err
	}
	node.Dir = out.nodeFolder
	out.node = &node
	return out, node.Prepare(node.Dir)
}

func (s *stressTest) stormFolder(plan storm.Plan, name string) (string, error) {
	dir, err := s.agent.runner.Folder(s.id, name)
	if err != nil {
		return "", err
	}
	if err := plan.Prepare(dir); err != nil {
		return "", fault.New(codes.FailedPrecondition, "%w", err)
	}
	return dir, nil
}

// stormTime is how long a storm lasts.
func (s *stressTest) stormTime() time.Duration {
	if d := s.ask.GetStorm().GetTime().AsDuration(); d > 0 {
		return d
	}
	return time.Second
}

// token begins the names of the container's own files.
func (s *storms) token() string {
	if s.inside == nil {
		return ""
	}
	return s.inside.Token
}

func (s *storms) mounts() []string {
	if s.inside == nil {
		return nil
	}
	return []string{s.folder + ":" + stormDir + ":ro"}
}

// onNode begins the storm on the node.
func (s *storms) onNode(ctx context.Context) error {
	if s.node == nil {
		return nil
	}
	args := s.node.Args()
	s.command = exec.CommandContext(ctx, args[0], args[1:]...)
	s.command.Stdout = &s.output
	s.command.Env = []string{}
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.command.Cancel = func() error { return syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL) }
	s.command.WaitDelay = 5 * time.Second
	if err := s.command.Start(); err != nil {
		s.command = nil
		return fmt.Errorf("start the storm on the node: %w", err)
	}
	return nil
}

// nodeEnds waits for the storm on the node.
func (s *storms) nodeEnds() error {
	if s.command == nil {
		return nil
	}
	err := s.command.Wait()
	s.command = nil
	if err != nil {
		return fmt.Errorf("storm on the node: %w", err)
	}
	s.nodeTruth, err = s.node.ReadTruth(&s.output)
	return err
}

// inContainer makes the storm in the container.
func (s *storms) inContainer(ctx context.Context, c *runner.Container) error {
	if s.inside == nil {
		return nil
	}
	args := s.inside.Args()
	file := path.Join(stormDir, s.inside.Token+"-n0")
	if s.mark {
		args = []string{file}
	}
	var out bounded
	code, err := c.ExecAsRoot(ctx, "storm", args, &out)
	switch {
	case ended(c) && s.mark && (err != nil || code != 0):
		s.left = true
		return nil
	case ended(c) && (err != nil || code != 0):
		return fault.New(codes.FailedPrecondition, "the container ended before the storm in it was over; take an image that keeps running, or give it a command that does after --")
	case err != nil:
		return fmt.Errorf("storm in the container: %w", err)
	case code != 0:
		return fmt.Errorf("storm in the container: it ended with status %d", code)
	case s.mark:
		s.truth = &storm.Truth{Executed: map[string]uint64{file: 1}}
		return nil
	}
	s.truth, err = s.inside.ReadTruth(&out.Buffer)
	return err
}

// ended reports whether a container has ended; one that is about to may take a
// moment to be known as such.
func ended(c *runner.Container) bool {
	select {
	case <-c.Exited():
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}

// check compares the truth with what was seen; nil when there is none.
func (s *storms) check(t *tally) *confinev1.StormCheck {
	if s.truth == nil {
		return nil
	}
	out := t.compare(s.truth.Executed)
	out.Failed = saturate(s.truth.Failed)
	if s.truth.Time > 0 {
		out.Rate = float64(s.truth.Total()) / s.truth.Time.Seconds()
	}
	if s.nodeTruth != nil {
		out.NodeMade = saturate(s.nodeTruth.Total())
	}
	return out
}

// close ends what still runs and removes the files.
func (s *storms) close() {
	if s.command != nil {
		_ = s.command.Cancel()
		_ = s.command.Wait()
	}
	for _, dir := range []string{s.folder, s.nodeFolder} {
		if dir != "" {
			_ = os.RemoveAll(dir) // what stays goes with the run
		}
	}
}

// bounded is a buffer that takes no more than a storm can have to say.
type bounded struct{ bytes.Buffer }

// maxStormOutput is in bytes.
const maxStormOutput = 4 << 20

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxStormOutput {
		return 0, errors.New("the storm says too much")
	}
	return b.Buffer.Write(p)
}

// compare holds what was seen of a storm against what it executed.
func (t *tally) compare(made map[string]uint64) *confinev1.StormCheck {
	t.mu.Lock()
	defer t.mu.Unlock()
	var examples []string
	c := storm.Compare(made, t.storm, func(file string, made, seen uint64) {
		if len(examples) < maxExamples {
			examples = append(examples, difference(file, made, seen))
		}
	})
	return &confinev1.StormCheck{
		Made: saturate(c.Made), Seen: saturate(c.Seen), Missed: saturate(c.Missed), Duplicated: saturate(c.Duplicated), Extra: saturate(c.Extra),
		Examples: examples,
	}
}

// difference says how often a file was seen too seldom or too often.
func difference(file string, made, seen uint64) string {
	switch file = shortPath(file); {
	case made == 0:
		return fmt.Sprintf("%d of %s, which was not executed", seen, file)
	case seen < made:
		return fmt.Sprintf("missed %d of %s", made-seen, file)
	}
	return fmt.Sprintf("%d too many of %s", seen-made, file)
}

// maxExamples is how many differences of a storm are named.
const maxExamples = 5

// shortPath leaves the folders of long paths out.
func shortPath(p string) string {
	if len(p) > 120 {
		return "…/" + filepath.Base(p)
	}
	return p
}

func saturate(n uint64) uint32 { return uint32(min(n, 1<<32-1)) }
