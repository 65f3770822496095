package proc

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// scanFirst and scanLast are the shortest and the longest time between two
	// looks at all processes of a scope; it doubles while they show nothing
	// new.
	scanFirst = 100 * time.Millisecond
	scanLast  = 2 * time.Second
	// maxPending is how many processes wait for their next look; what comes
	// above it is left to the next scan.
	maxPending = 1 << 14
	// maxMembers bounds what is remembered of processes that were looked at.
	maxMembers = 1 << 16
	// memberTime is how long a process number is believed to mean the same
	// process after it ended. Numbers are used again after pid_max others.
	memberTime = 3 * time.Second
)

// ownImage is the name by which a process executes the file that it runs.
const ownImage = "/proc/self/exe"

// Reasons of losses.
const (
	lostUnresolved = "a process ended before it could be looked at, and its name alone doesn't tell the file"
	lostForeign    = "a process ended before it could be told whether it was in the scope"
	lostMalformed  = "a line of the tool's output can't be read"
)

// looks are the times after an execution at which the process's mappings are
// read: the loader's work, a program's start, its first requests.
func looks() []time.Duration {
	return []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond,
		100 * time.Millisecond, 400 * time.Millisecond, 1600 * time.Millisecond,
	}
}

// Naming says what a tool's name of an executed file is worth.
type Naming int

const (
	// Asked is the path given to execve, which succeeded.
	Asked Naming = iota
	// FirstArgument is the first argument of an execve that may have failed.
	FirstArgument
)

// Execution is what a tool tells about one execve.
type Execution struct {
	PID, PPID int32
	// Name of the file; see Naming.
	Name   string
	Naming Naming
	// Cut says that the name isn't whole.
	Cut bool
	// Args is the beginning of the argument vector in one text, separated by
	// blanks; "" when the tool tells none.
	Args string
	// Comm is the name of the thread afterwards, "" when the tool doesn't tell.
	Comm string
	// Scoped says that the tool itself reports only what is in the scope.
	Scoped bool

	// early is what was reported of the process, found in /proc, before the tool
	// told; nil when nothing was.
	early *confinev1.Exec
}

// Completer turns what a tool tells into events of a watch: it looks at each
// process while it lives, and at what it has mapped. What it can't find out it
// counts as lost.
//
// It sees mappings only by looking again and again, so that it misses those of
// short-lived processes; Unseen names their programs.
type Completer struct {
	scope *Scope
	root  *Root // nil when the scope names no process
	sink  *monitor.Sink

	looking sync.Mutex // held while an expected execution is looked for

	mu       sync.Mutex
	members  map[int32]member // by process number
	reported map[fileKey]bool // executed files
	mapped   map[mapKey]bool
	queue    lookQueue
	wake     chan struct{}
	unseen   map[string]bool // programs of which processes ended unseen
	// delivered is true once an execution was; repeated counts those that were
	// left out.
	delivered bool
	repeated  uint64
	waiting   map[int32]*look // executions that may not be done yet
	// found holds executions that were reported although no tool had told of
	// them, by process number; finds counts them.
	found map[int32]find
	finds uint64
}

type find struct {
	at   time.Time
	exec *confinev1.Exec
}

type member struct {
	in   bool
	file File // the program it runs, no path when unknown
	at   time.Time
}

type fileKey struct {
	path          string
	inode, device uint64
}

type mapKey struct {
	by string
	fileKey
}

func keyOf(f File) fileKey { return fileKey{f.Path, f.ID.GetInode(), f.ID.GetDevice()} }

// NewCompleter prepares the completion of a watch. What runs in the scope by
// now counts as known. Close releases it.
func NewCompleter(scope *Scope, sink *monitor.Sink) *Completer {
	c := &Completer{
		scope: scope, sink: sink,
		members: map[int32]member{}, reported: map[fileKey]bool{}, mapped: map[mapKey]bool{},
		unseen: map[string]bool{}, waiting: map[int32]*look{}, found: map[int32]find{}, wake: make(chan struct{}, 1),
	}
	if scope.PID() > 0 {
		c.root, _ = OpenRoot(scope.PID()) // names stay unresolved without it
	}
	pids, _ := scope.Processes() // none that are known is no harm
	for _, pid := range pids {
		if p, err := Open(pid); err == nil {
			if f, err := p.Image(); err == nil {
				c.reported[keyOf(f)] = true
				c.members[pid] = member{in: true, file: f, at: time.Now()}
			}
			p.Close()
		}
	}
	return c
}

// Close releases what the completer holds.
func (c *Completer) Close() {
	if c.root != nil {
		c.root.Close()
	}
}

// now is the kernel's CLOCK_BOOTTIME in nanoseconds.
func now() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// Exec takes an execution that a tool tells. Calls come in the tool's order.
func (c *Completer) Exec(x Execution) {
	x.early = c.toldLate(x.PID)
	p, err := Open(x.PID)
	if err != nil {
		c.ended(x)
		return
	}
	defer p.Close()
	in, err := c.scope.Has(p)
	switch {
	case err != nil:
		c.ended(x)
		return
	case !in && x.Scoped && c.isMember(x.PPID):
		c.ended(x) // the number belongs to another process by now
		return
	case !in:
		// Somebody else's, or a runtime on its way into the container.
		c.remember(x.PID, false, File{})
		return
	}
	if x.Naming == FirstArgument {
		c.expect(x, p)
		return
	}
	image, err := p.Image()
	if err != nil {
		c.ended(x)
		return
	}
	c.running(x, p, image)
}

// running reports an execution whose process lives and runs image, by that or
// by a later execution.
func (c *Completer) running(x Execution, p *Process, image File) {
	e := &confinev1.Exec{
		Time: now(), Pid: x.PID, Ppid: x.PPID, Comm: valid(x.Comm),
		Path: image.Path, Filename: image.Path, File: image.ID,
	}
	asked, err := c.asked(x, p)
	switch {
	case c.isRuntime(x, image):
		c.remember(x.PID, true, File{})
		return
	case x.Name == ownImage:
		// Whatever it runs by now, that one ran already.
	case err != nil && !c.isOf(x, p):
		// It runs something else by now, which has an event of its own.
		c.lose(lostUnresolved)
		return
	case err != nil:
		// The file that runs is known, and its arguments tell a script.
		if args, err := p.Args(); err == nil && x.Comm != "" {
			c.script(e, p, x.Comm, image, args)
		}
	case sameFile(asked.File, image):
		e.Path = image.Path
		e.Filename = asked.Path
	default:
		between, interpreter, last, err := c.root.chain(asked)
		e.Filename = asked.Path
		switch {
		case err == nil && interpreter == "" && asked.IsELF():
			// It went on to run something else before it could be looked at.
			e.Path, e.File = asked.Path, asked.ID
		case err == nil && interpreter != "":
			e.Interpreter, e.Nested = interpreter, between
			if !sameFile(last.File, image) {
				e.Path, e.File = last.Path, last.ID
			}
		}
	}
	if !x.reported(e) {
		c.report(e)
	}
}

// chain is Chain of a root that may be nil.
func (r *Root) chain(f Found) ([]string, string, Found, error) {
	if r == nil {
		return nil, "", Found{}, errors.New("no root")
	}
	return r.Chain(f)
}

// asked finds the file that an execution named; p may be nil.
func (c *Completer) asked(x Execution, p *Process) (Found, error) {
	if x.Cut {
		return Found{}, errors.New("the name isn't whole")
	}
	if c.root == nil {
		return Found{}, errors.New("no root")
	}
	cwd := "/"
	if p != nil && !strings.HasPrefix(x.Name, "/") {
		var err error
		if cwd, err = p.Cwd(); err != nil {
			return Found{}, err
		}
	}
	for _, name := range spellings(x.Name) {
		if f, err := c.root.Resolve(cwd, name); err == nil {
			return f, nil
		}
	}
	return Found{}, fmt.Errorf("%q isn't there", x.Name)
}

// spellings are the names that a quoted one may stand for: tools that quote
// don't all quote their quoting character.
func spellings(name string) []string {
	if !strings.Contains(name, `\`) {
		return []string{name}
	}
	return []string{name, strings.NewReplacer(`\"`, `"`, `\n`, "\n", `\t`, "\t", `\\`, `\`).Replace(name)}
}

// isOf reports whether a process still runs what an execution started.
func (c *Completer) isOf(x Execution, p *Process) bool {
	if x.Comm == "" {
		return true
	}
	comm, err := p.read("comm", maxSmall)
	return err == nil && strings.TrimSuffix(string(comm), "\n") == x.Comm
}

// isRuntime reports whether a process is the container runtime's own, which
// has come from outside to become a program of the container: it runs a file
// that isn't in the container's root.
func (c *Completer) isRuntime(x Execution, image File) bool {
	if x.PID == c.scope.PID() || c.root == nil || c.isMember(x.PPID) {
		return false
	}
	if strings.HasPrefix(image.Path, "/") {
		if f, err := c.root.Resolve("/", strings.TrimSuffix(image.Path, deletedMark)); err == nil && sameFile(f.File, image) {
			return false
		}
	}
	q, err := Open(x.PPID)
	if err != nil {
		return false
	}
	defer q.Close()
	in, err := c.scope.Has(q)
	return err == nil && !in
}

func sameFile(a, b File) bool {
	return a.ID.GetInode() == b.ID.GetInode() && a.ID.GetDevice() == b.ID.GetDevice()
}

// ended reports an execution whose process has ended: by name, if that tells
// the file, or as lost.
func (c *Completer) ended(x Execution) {
	if !x.Scoped {
		in, known := c.membership(x.PPID)
		if !known {
			c.lose(lostForeign)
			return
		}
		if !in {
			return
		}
	}
	e := &confinev1.Exec{Time: now(), Pid: x.PID, Ppid: x.PPID, Comm: valid(x.Comm)}
	own, ok := c.ownImage(x)
	switch {
	case ok:
		e.Path, e.File, e.Filename = own.Path, own.ID, own.Path
		c.remember(x.PID, true, own)
		c.reportEnded(e)
		return
	case x.Naming == Asked && x.Name == ownImage && c.repeats():
		return
	}
	c.remember(x.PID, true, File{})
	sure := x.Naming == Asked && !x.Cut && strings.HasPrefix(x.Name, "/") && !strings.HasPrefix(x.Name, "/proc/") && !strings.HasPrefix(x.Name, "/dev/fd/")
	found, err := c.guess(x, sure)
	if err == nil {
		between, interpreter, last, err := c.root.Chain(found)
		if err == nil && (interpreter != "" || found.IsELF()) {
			e.Path, e.File = last.Path, last.ID
			e.Filename, e.Interpreter, e.Nested = found.Path, interpreter, between
			if !x.reported(e) {
				c.reportEnded(e)
			}
			if sure {
				return
			}
		}
	}
	c.lose(lostUnresolved)
}

// ownImage is what a process that has ended executed as its own image, which
// it had from its parent.
func (c *Completer) ownImage(x Execution) (File, bool) {
	if x.Naming != Asked || x.Name != ownImage {
		return File{}, false
	}
	if q, err := Open(x.PPID); err == nil {
		image, err := q.Image()
		in, inErr := c.scope.Has(q)
		q.Close()
		if err == nil && inErr == nil && in {
			return image, true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.members[x.PPID]
	return m.file, ok && m.in && m.file.Path != "" && time.Since(m.at) <= memberTime
}

// repeats counts an execution of a file that a process of the scope ran
// already, whichever it is: nothing new was executed.
func (c *Completer) repeats() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scope.every || !c.delivered {
		return false
	}
	c.repeated++
	return true
}

// Repeated counts executions that were left out because the file that was
// executed had been delivered.
func (c *Completer) Repeated() *confinev1.Repeated {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &confinev1.Repeated{Execs: c.repeated}
}

// guess finds the file of a process that has ended by what its parent tells.
func (c *Completer) guess(x Execution, sure bool) (Found, error) {
	if sure {
		return c.asked(x, nil)
	}
	if c.root == nil || x.Cut || x.Name == "" {
		return Found{}, errors.New("no name")
	}
	cwd, search := "/", ""
	for _, pid := range []int32{x.PPID, c.scope.PID()} {
		q, err := Open(pid)
		if err != nil {
			continue
		}
		if dir, err := q.Cwd(); err == nil {
			cwd = dir
			search, _ = q.Env("PATH")
		}
		q.Close()
		break
	}
	return c.root.Search(cwd, x.Name, search)
}

// report delivers an execution whose process lives, and looks at the process
// again.
func (c *Completer) report(e *confinev1.Exec) {
	c.deliver(e)
	c.remember(e.Pid, true, File{Path: e.Path, ID: e.File})
	c.later(&look{pid: e.Pid, path: e.Path})
}

// reportEnded delivers an execution whose process has ended.
func (c *Completer) reportEnded(e *confinev1.Exec) {
	c.deliver(e)
	c.mu.Lock()
	c.missed(e.Path)
	c.mu.Unlock()
}

func (c *Completer) deliver(e *confinev1.Exec) {
	c.mu.Lock()
	c.reported[keyOf(File{e.Path, e.File})] = true
	c.delivered = true
	c.mu.Unlock()
	e.Filename, e.Interpreter = valid(e.Filename), valid(e.Interpreter)
	for i := range e.Nested {
		e.Nested[i] = valid(e.Nested[i])
	}
	c.sink.Exec(e)
}

// missed counts a process whose mappings nobody saw. mu is held.
func (c *Completer) missed(program string) {
	if len(c.unseen) < maxMembers {
		c.unseen[program] = true
	}
}

func (c *Completer) lose(reason string) { c.sink.Lost(1, reason) }

// Malformed counts output of the tool that can't be read.
func (c *Completer) Malformed() { c.lose(lostMalformed) }

// valid makes text fit for a protobuf string.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// remember keeps whether a process is in the scope.
func (c *Completer) remember(pid int32, in bool, program File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.members) >= maxMembers {
		for p, m := range c.members {
			if time.Since(m.at) > memberTime {
				delete(c.members, p)
			}
		}
		if len(c.members) >= maxMembers {
			clear(c.members)
		}
	}
	c.members[pid] = member{in: in, file: program, at: time.Now()}
}

func (c *Completer) isMember(pid int32) bool {
	in, known := c.membership(pid)
	return known && in
}

// membership says whether a process, which may have ended, is in the scope.
func (c *Completer) membership(pid int32) (in, known bool) {
	if p, err := Open(pid); err == nil {
		in, err := c.scope.Has(p)
		p.Close()
		if err == nil {
			return in, true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.members[pid]
	if !ok || time.Since(m.at) > memberTime {
		return false, false
	}
	return m.in, true
}

// Start begins to Run; stop ends that, and returns when nothing is looked at
// any more.
func (c *Completer) Start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() { c.Run(ctx) })
	return func() {
		cancel()
		looking.Wait()
	}
}

// Run looks at processes again when their time has come, and at all of them
// now and then, until ctx ends.
func (c *Completer) Run(ctx context.Context) {
	pause := scanFirst
	scan := time.NewTimer(pause)
	defer scan.Stop()
	for {
		c.lookAtDue()
		next := time.NewTimer(c.untilNext())
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-c.wake:
			if pause > scanFirst {
				pause = scanFirst
				scan.Reset(pause)
			}
		case <-next.C:
		case <-scan.C:
			if c.Scan() {
				pause = scanFirst
			} else {
				pause = min(2*pause, scanLast)
			}
			scan.Reset(pause)
		}
		next.Stop()
	}
}

// Scan looks at all processes of the scope, and reports whether there was
// anything new. An executed file that no tool told of is reported: some tools
// don't see execveat, nor executions by another thread than the first.
func (c *Completer) Scan() (news bool) {
	pids, err := c.scope.Processes()
	if err != nil {
		return false
	}
	for _, pid := range pids {
		p, err := Open(pid)
		if err != nil {
			continue
		}
		image, err := p.Image()
		if err == nil && c.fresh(p, image) {
			news = true
		}
		if err == nil && c.readMaps(p, image.Path) {
			news = true
		}
		p.Close()
	}
	return news
}

// fresh reports the file that a process runs if nobody has told of it.
func (c *Completer) fresh(p *Process, image File) bool {
	c.mu.Lock()
	known := c.reported[keyOf(image)] || c.waiting[p.PID] != nil
	m, seen := c.members[p.PID]
	c.mu.Unlock()
	if known || seen && m.file.Path == "" && m.in {
		return false // a runtime, on its way to a program
	}
	parent, err := p.Parent()
	if err != nil || c.isRuntime(Execution{PID: p.PID, PPID: parent}, image) {
		return false
	}
	e := &confinev1.Exec{
		Time: now(), Pid: p.PID, Ppid: parent, Path: image.Path, Filename: image.Path, File: image.ID,
	}
	c.mu.Lock()
	if len(c.found) < maxMembers {
		c.found[p.PID] = find{time.Now(), e}
		c.finds++
	}
	c.mu.Unlock()
	c.report(e)
	return true
}

// Found counts executions that were reported although no tool told of them. One
// that may have been told of since doesn't count.
func (c *Completer) Found() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.finds
}

// toldLate takes back that no tool told of an execution, when one tells of the
// same process soon after, and returns what was reported of it.
func (c *Completer) toldLate(pid int32) *confinev1.Exec {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.found[pid]
	if !ok {
		return nil
	}
	delete(c.found, pid)
	if time.Since(f.at) > memberTime {
		return nil
	}
	c.finds--
	return f.exec
}

// reported reports whether e was reported before the tool told of it.
func (x Execution) reported(e *confinev1.Exec) bool {
	return x.early != nil && e.Path == x.early.Path && e.Filename == x.early.Filename &&
		e.File.GetInode() == x.early.File.GetInode() && e.File.GetDevice() == x.early.File.GetDevice()
}

// readMaps reports what a process has mapped and nobody has reported of its
// program.
func (c *Completer) readMaps(p *Process, program string) (news bool) {
	files, err := p.Mappings()
	if err != nil {
		return false
	}
	for _, f := range files {
		if f.Path == program {
			continue
		}
		k := mapKey{program, keyOf(f)}
		c.mu.Lock()
		known := c.mapped[k]
		c.mapped[k] = true
		c.mu.Unlock()
		if !known {
			news = true
			c.sink.Mapping(&confinev1.Mapping{Time: now(), Pid: p.PID, Path: f.Path, File: f.ID})
		}
	}
	return news
}

// Unseen lists the programs of which processes ended before it could be seen
// what they had mapped, sorted.
func (c *Completer) Unseen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.unseen))
}

// Settle decides what is still open: executions that were told of before they
// happened, and a last look at all processes. Events that were told before
// have gone to the sink when it returns.
func (c *Completer) Settle() {
	c.mu.Lock()
	var open []*look
	for _, l := range c.waiting {
		open = append(open, l)
	}
	c.mu.Unlock()
	for _, l := range open {
		l.n = len(looks())
		c.lookFor(l)
	}
	c.Scan()
}

// look is a process that is to be looked at.
type look struct {
	pid  int32
	path string    // the program that it ran when it was put in
	n    int       // looks so far
	seen bool      // its mappings were read
	from time.Time // first put in
	due  time.Time
	// expected is set for an execution that may not have happened yet.
	expected *Execution
	before   File // what the process ran then
}

// later puts a process in for its next look.
func (c *Completer) later(l *look) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.from.IsZero() {
		l.from = time.Now()
	}
	all := looks()
	if l.n >= len(all) {
		return
	}
	if len(c.queue) >= maxPending {
		c.missed(l.path)
		return
	}
	l.due = l.from.Add(all[l.n])
	heap.Push(&c.queue, l)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Completer) untilNext() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return time.Hour
	}
	return max(time.Until(c.queue[0].due), 0)
}

func (c *Completer) due() *look {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 || c.queue[0].due.After(time.Now()) {
		return nil
	}
	return heap.Pop(&c.queue).(*look)
}

func (c *Completer) lookAtDue() {
	for l := c.due(); l != nil; l = c.due() {
		c.lookAt(l)
	}
}

func (c *Completer) lookAt(l *look) {
	if l.expected != nil {
		c.lookFor(l)
		return
	}
	p, err := Open(l.pid)
	if err != nil {
		c.vanished(l)
		return
	}
	defer p.Close()
	image, err := p.Image()
	if err != nil {
		c.vanished(l)
		return
	}
	if image.Path != l.path {
		if !l.seen {
			c.vanished(l) // it runs another program now
		}
		return
	}
	if files, err := p.Mappings(); err != nil || len(files) == 0 {
		c.vanished(l)
		return
	}
	c.readMaps(p, image.Path)
	l.seen = true
	l.n++
	c.later(l)
}

func (c *Completer) vanished(l *look) {
	if l.seen {
		return
	}
	c.mu.Lock()
	c.missed(l.path)
	c.mu.Unlock()
}

// expect waits for an execution that a tool told of before it happened.
func (c *Completer) expect(x Execution, p *Process) {
	before, err := p.Image()
	if err != nil {
		c.ended(x)
		return
	}
	c.remember(x.PID, true, File{})
	c.mu.Lock()
	old := c.waiting[x.PID]
	l := &look{pid: x.PID, expected: &x, before: before}
	c.waiting[x.PID] = l
	c.mu.Unlock()
	if old != nil && (old.expected.Args != x.Args || x.Args == "") {
		// It ran that one, and goes on to another already; the same again is
		// one more try along PATH.
		c.ended(*old.expected)
	}
	l.n = -1
	c.lookFor(l)
}

// lookFor looks whether an expected execution has happened.
func (c *Completer) lookFor(l *look) {
	c.looking.Lock()
	defer c.looking.Unlock()
	c.mu.Lock()
	if c.waiting[l.pid] != l {
		c.mu.Unlock()
		return // another took its place
	}
	c.mu.Unlock()
	x := *l.expected
	p, err := Open(l.pid)
	if err != nil {
		c.unexpect(l)
		c.ended(x)
		return
	}
	defer p.Close()
	image, args, err := imageAndArgs(p)
	if err == nil && (x.Args == "" && !sameFile(image, l.before) || x.Args != "" && c.isFrom(x, p, args, image)) {
		c.unexpect(l)
		c.happened(x, p, image, args)
		return
	}
	if err != nil {
		c.unexpect(l)
		c.ended(x)
		return
	}
	l.n++
	if l.n >= len(looks())-1 {
		c.unexpect(l) // it failed, or the program has changed its arguments
		// Without arguments nobody knows whether it had happened by the first
		// look: told twice is better than not at all.
		if x.Args == "" || !sameFile(image, l.before) {
			c.happened(x, p, image, args)
		}
		return
	}
	c.later(l)
}

func (c *Completer) unexpect(l *look) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[l.pid] == l {
		delete(c.waiting, l.pid)
	}
}

// isFrom reports whether a process with an argument vector was started by an
// execution of which a tool told how the vector begins. The kernel puts the
// interpreter of a script, its argument and the script's path in the place of
// the first argument; a program that is about to execute the script may have
// the path among its arguments, too.
func (c *Completer) isFrom(x Execution, p *Process, args []string, image File) bool {
	if len(args) == 0 {
		return false
	}
	if strings.HasPrefix(strings.Join(args, " "), x.Args) {
		return true
	}
	_, rest, _ := strings.Cut(x.Args, " ")
	for i := 1; i < len(args) && i <= 2*scriptDepth; i++ {
		if path.Base(args[i]) == path.Base(x.Name) && strings.HasPrefix(strings.Join(args[i+1:], " "), rest) {
			if s, err := c.scriptAt(p, args[i]); err != nil || s.runs(image) {
				return true
			}
		}
	}
	return false
}

// imageAndArgs reads what a process runs and its argument vector, which belong
// together: it may execute something in between. The vector is empty while an
// execution makes it.
func imageAndArgs(p *Process) (image File, args []string, err error) {
	for range 3 {
		if image, err = p.Image(); err != nil {
			return image, nil, err
		}
		if args, err = p.Args(); err != nil {
			return image, nil, err
		}
		after, err := p.Image()
		if err != nil || sameFile(after, image) {
			return image, args, err
		}
	}
	return image, nil, nil
}

// aScript is a file that a process was started for.
type aScript struct {
	path        string
	between     []string // scripts that interpret it
	interpreter string   // as it stands there; "" for a program
	last        Found    // what runs
}

// scriptAt looks at the file that a process names.
func (c *Completer) scriptAt(p *Process, name string) (s aScript, err error) {
	if c.root == nil {
		return s, errors.New("no root")
	}
	cwd, err := p.Cwd()
	if err != nil {
		return s, err
	}
	f, err := c.root.Resolve(cwd, name)
	if err != nil {
		return s, err
	}
	s.path = f.Path
	s.between, s.interpreter, s.last, err = c.root.Chain(f)
	return s, err
}

// runs reports whether it is a script that an image interprets.
func (s *aScript) runs(image File) bool { return s.interpreter != "" && sameFile(s.last.File, image) }

// happened reports an expected execution.
func (c *Completer) happened(x Execution, p *Process, image File, args []string) {
	e := &confinev1.Exec{
		Time: now(), Pid: x.PID, Ppid: x.PPID, Path: image.Path, Filename: image.Path, File: image.ID,
	}
	if comm, err := p.read("comm", maxSmall); err == nil {
		e.Comm = valid(strings.TrimSuffix(string(comm), "\n"))
	}
	if parent, err := p.Parent(); err == nil && e.Ppid == 0 {
		e.Ppid = parent
	}
	c.script(e, p, path.Base(x.Name), image, args)
	c.report(e)
}

// script finds the script that a process with an interpreter's image was
// started for, by its name and the argument vector that the kernel made.
func (c *Completer) script(e *confinev1.Exec, p *Process, name string, image File, args []string) {
	for i := 1; i < len(args) && i <= 2*scriptDepth; i++ {
		if !strings.HasPrefix(path.Base(args[i]), name) {
			continue
		}
		if s, err := c.scriptAt(p, args[i]); err == nil && s.runs(image) {
			e.Filename, e.Interpreter, e.Nested = s.path, s.interpreter, s.between
			return
		}
	}
}

// lookQueue is a heap by due.
type lookQueue []*look

func (q lookQueue) Len() int           { return len(q) }
func (q lookQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q lookQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *lookQueue) Push(x any)        { *q = append(*q, x.(*look)) }
func (q *lookQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
