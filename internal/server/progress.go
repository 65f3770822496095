package server

import (
	"fmt"
	"slices"
	"time"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Stages of a run, a contract with those who watch.
const (
	stageImage   = "image"
	stageRun     = "run"
	stageSettle  = "settle"
	stageUpload  = "upload"
	stageAnalyse = "analyse"
	stageProve   = "prove"
	stageRounds  = "rounds" // of a stress test
)

func stageNames() []string {
	return []string{stageImage, stageRun, stageSettle, stageUpload, stageAnalyse, stageProve, stageRounds}
}

// say tells those who watch, and keeps the time of each stage. It never
// blocks: what nobody reads in time is left out.
func (r *run) say(p *confinev1.Progress) {
	if !slices.Contains(stageNames(), p.GetStage()) {
		return
	}
	p = &confinev1.Progress{
		Stage: p.GetStage(), Done: p.GetDone(), Text: clean(p.GetText(), 256),
		Count: p.GetCount(), Total: p.GetTotal(), Seconds: time.Since(r.began).Seconds(),
	}
	r.mu.Lock()
	fresh := r.clock.note(p.Stage, p.Done, time.Now())
	r.mu.Unlock()
	if !fresh {
		return
	}
	select {
	case r.news <- p:
	default:
	}
}

// tell is say for the server's own stages.
func (r *run) tell(stage string, done bool, count, total int, format string, args ...any) {
	r.say(&confinev1.Progress{Stage: stage, Done: done, Count: uint32(count), Total: uint32(total), Text: fmt.Sprintf(format, args...)})
}

// stage is the one that is under way.
func (r *run) stage() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock.current
}

// stageClock measures stages.
type stageClock struct {
	current string
	// started and spent: key is the stage.
	started map[string]time.Time
	spent   map[string]time.Duration
}

func newStageClock() stageClock {
	return stageClock{current: stageImage, started: map[string]time.Time{}, spent: map[string]time.Duration{}}
}

// note takes news of a stage. It returns false for a stage that was done
// already: what happens later in its name (an upload that the analysis asked
// for) belongs to another stage.
func (c *stageClock) note(stage string, done bool, now time.Time) bool {
	if _, ok := c.started[stage]; !ok {
		c.started[stage] = now
		c.current = stage
	}
	if _, was := c.spent[stage]; was {
		return false
	}
	if done {
		c.spent[stage] = now.Sub(c.started[stage])
	}
	return true
}

// seconds is the time of each stage that was done.
func (c *stageClock) seconds() map[string]float64 {
	out := map[string]float64{}
	for stage, d := range c.spent {
		out[stage] = d.Seconds()
	}
	return out
}
