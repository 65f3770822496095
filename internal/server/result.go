package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/confinehq/confine/internal/version"
	"github.com/confinehq/confine/pkg/analysis"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Statuses of a proof.
const (
	proofProven  = "proven"
	proofDenied  = "denied"
	proofFailed  = "failed"
	proofSkipped = "skipped"
)

// maxArgs is the number of a call's arguments.
const maxArgs = 6

// checkProof makes an agent's verdict consistent: with a refused call nothing
// is proven.
func checkProof(p *confinev1.Proof) *confinev1.Proof {
	out := &confinev1.Proof{Status: p.GetStatus(), Detail: clean(p.GetDetail(), maxText), Seconds: cleanSeconds(p.GetSeconds())}
	for _, d := range p.GetDenied()[:min(len(p.GetDenied()), 1000)] {
		out.Denied = append(out.Denied, &confinev1.Denied{
			Name: clean(d.GetName(), 64), Nr: d.GetNr(), Process: clean(d.GetProcess(), maxPath),
			Caller: clean(d.GetCaller(), maxPath), Count: d.GetCount(), Pid: d.GetPid(),
			Args: d.GetArgs()[:min(len(d.GetArgs()), maxArgs)], Text: clean(d.GetText(), 512),
		})
	}
	out.Recorded = cleanRecorded(p.GetRecorded())
	switch {
	case !slices.Contains([]string{proofProven, proofDenied, proofFailed, proofSkipped}, out.Status):
		out.Status, out.Detail = proofFailed, "the node gave a verdict that this server does not know"
	case len(out.Denied) > 0 && out.Status == proofProven:
		out.Status = proofDenied
	}
	return out
}

// assemble puts the parts of a run into the document that users get.
func assemble(r *run, seen *observation, found *analysis.Result, set *callSet, profile *structpb.Struct, proof *confinev1.Proof, failed []*confinev1.Incomplete) *confinev1.Result {
	out := &confinev1.Result{
		Id: r.id, Created: time.Now().UTC().Format(time.RFC3339), Version: version.Version,
		Image: clean(seen.image.GetImage(), 512), Digest: clean(seen.image.GetDigest(), 128), Platform: seen.arch.Platform(),
		Node: r.nodeName(), Monitor: seen.monitor, Run: cleanRun(seen), Runtime: cleanRuntime(seen.runtime),
		Syscalls: set.sorted(), Profile: profile, Proof: proof,
		NarrowedSyscalls: set.narrowed(), KernelSyscalls: uint32(syscalls.Count(seen.arch)), DefaultSyscalls: uint32(defaultCalls(seen.arch)),
	}
	if out.Image == "" {
		out.Image = clean(subject(r.spec), 512)
	}
	markProven(out.Syscalls, proof)
	for _, f := range seen.executed() {
		out.Executed = append(out.Executed, &confinev1.Executed{Path: clean(f.GetPath(), maxPath), Sha256: f.GetSha256(), Kind: kindOf(f), Count: f.GetExecuted()})
	}
	for _, o := range found.Objects {
		out.Objects = append(out.Objects, &confinev1.Object{
			Path: clean(o.Path, maxPath), Sha256: o.SHA256, Origin: seen.origin(o), Cached: o.Cached, Size: uint64(max(o.Size, 0)),
			Config: clean(o.Config, maxPath),
		})
	}
	missing := slices.Concat(seen.incomplete, set.incomplete, protoIssues(found.Incomplete))
	for _, f := range failed {
		missing = append(missing, &confinev1.Incomplete{Kind: cleanKind(f.GetKind()), Object: clean(f.GetObject(), maxPath), Detail: clean(f.GetDetail(), maxText)})
	}
	missing = append(missing, failure(out.Run)...)
	out.Incomplete = tidy(unreadableOnce(missing))
	out.Notes = tidy(slices.Concat(seen.notes, protoIssues(found.Notes)))
	return out
}

// origin is the strongest evidence for an object.
func (o *observation) origin(object analysis.Object) string {
	origin := object.Origin
	for _, f := range o.files {
		switch {
		case f.GetPath() != object.Path:
		case f.GetExecuted() > 0:
			return string(analysis.OriginExecuted)
		case f.GetMapped() && (origin == analysis.OriginStatic || origin == analysis.OriginConfigured):
			origin = analysis.OriginMapped
		}
	}
	return string(origin)
}

func kindOf(f *confinev1.FileSeen) string {
	if f.GetKind() == "elf" || f.GetKind() == "script" {
		return f.GetKind()
	}
	return "unknown"
}

// failure says that the container itself did not do its work: what it would
// have done next is not known.
func failure(run *confinev1.Run) []*confinev1.Incomplete {
	if run.GetExitCode() == 0 {
		return nil
	}
	detail := fmt.Sprintf("the container's first process ended with status %d", run.GetExitCode())
	if last := run.GetOutput(); len(last) > 0 {
		detail += ": " + strings.Join(last[max(0, len(last)-3):], " | ")
	}
	return []*confinev1.Incomplete{{
		Kind: "container-failed", Detail: detail + "; give it what it needs (--env, --mount, arguments after --)",
	}}
}

func cleanRun(seen *observation) *confinev1.Run {
	run := seen.run
	run.SettledBy = clean(run.GetSettledBy(), maxText)
	run.Output = cleanAll(run.GetOutput(), maxText, 100)
	run.Recorded = cleanRecorded(run.GetRecorded())
	return run
}

func cleanRecorded(list []*confinev1.Recorded) []*confinev1.Recorded {
	for _, rec := range list {
		rec.Path = clean(rec.GetPath(), maxPath)
		rec.Syscalls = cleanAll(rec.GetSyscalls(), 64, 2000)
		rec.Compat = cleanAll(rec.GetCompat(), 64, 2000)
	}
	return list
}

// markProven marks the calls that were made under the profile as seen, too.
func markProven(calls []*confinev1.Syscall, proof *confinev1.Proof) {
	made := map[string]bool{}
	for _, rec := range proof.GetRecorded() {
		if rec.GetPath() == "" {
			continue // the runtime's own init
		}
		for _, name := range slices.Concat(rec.GetSyscalls(), rec.GetCompat()) {
			made[name] = true
		}
	}
	for _, c := range calls {
		c.Seen = c.GetSeen() || made[c.GetName()]
	}
}

func cleanRuntime(r *confinev1.Runtime) *confinev1.Runtime {
	if r == nil {
		return nil
	}
	floor := cleanAll(r.GetFloor(), 64, 2000)
	slices.Sort(floor)
	return &confinev1.Runtime{Name: clean(r.GetName(), 128), Sha256: clean(r.GetSha256(), 64), NoNewPrivs: r.GetNoNewPrivs(), Floor: floor}
}

func protoIssues(list []analysis.Issue) []*confinev1.Incomplete {
	var out []*confinev1.Incomplete
	for _, i := range list {
		out = append(out, &confinev1.Incomplete{Kind: cleanKind(i.Kind), Object: clean(i.Object, maxPath), Detail: clean(i.Detail, maxText)})
	}
	return out
}

// unreadableOnce keeps, of a file that several can't read, what the first says:
// the node, where it does.
func unreadableOnce(list []*confinev1.Incomplete) []*confinev1.Incomplete {
	said := map[string]bool{} // by path
	var out []*confinev1.Incomplete
	for _, i := range list {
		if i.GetKind() == "unreadable-object" {
			if said[i.GetObject()] {
				continue
			}
			said[i.GetObject()] = true
		}
		out = append(out, i)
	}
	return out
}

// tidy sorts issues and drops repetitions.
func tidy(list []*confinev1.Incomplete) []*confinev1.Incomplete {
	compare := func(a, b *confinev1.Incomplete) int {
		if c := strings.Compare(a.GetKind(), b.GetKind()); c != 0 {
			return c
		}
		if c := strings.Compare(a.GetObject(), b.GetObject()); c != 0 {
			return c
		}
		return strings.Compare(a.GetDetail(), b.GetDetail())
	}
	slices.SortFunc(list, compare)
	return slices.CompactFunc(list, func(a, b *confinev1.Incomplete) bool { return compare(a, b) == 0 })
}

// summaryOf is a result's line in the list.
func summaryOf(r *confinev1.Result) *confinev1.ProfileSummary {
	created, err := time.Parse(time.RFC3339, r.GetCreated())
	if err != nil {
		created = time.Now()
	}
	return &confinev1.ProfileSummary{
		Id: r.GetId(), Image: r.GetImage(), Digest: r.GetDigest(), Node: r.GetNode(), Created: timestamppb.New(created),
		Syscalls: uint32(len(r.GetSyscalls())), Incomplete: uint32(len(r.GetIncomplete())), Proof: r.GetProof().GetStatus(),
	}
}
