package system

import (
	"slices"
	"strings"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// workloads are commands that use the containers, from inside their network.
const (
	redisLoad = `redis-benchmark -q -n 3000 -c 20 -t ping,set,get,incr,lpush,lrange_100,hset,zadd,mset
redis-cli EVAL "redis.call('set', KEYS[1], ARGV[1]); return redis.call('get', KEYS[1])" 1 k v | grep -qx v
redis-cli BGSAVE
until redis-cli INFO persistence | tr -d '\r' | grep -qx rdb_bgsave_in_progress:0; do sleep 0.1; done
redis-cli BGREWRITEAOF
until redis-cli INFO persistence | tr -d '\r' | grep -qx aof_rewrite_in_progress:0; do sleep 0.1; done
redis-cli INFO persistence | grep -q rdb_last_bgsave_status:ok
redis-cli INFO persistence | grep -q aof_last_bgrewrite_status:ok`
	nginxLoad = `for i in $(seq 100); do curl -fsS http://127.0.0.1/ >/dev/null; done
curl -fsS --compressed -r 0-10 http://127.0.0.1/ >/dev/null
test "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1/nonesuch)" = 404
kill -HUP $CONFINE_CONTAINER_PID
sleep 1
for i in $(seq 100); do curl -fsS http://127.0.0.1/ >/dev/null; done`
	postgresLoad = `in="chroot $CONFINE_ROOT"
bin=/usr/lib/postgresql/current/bin
until $in $bin/pg_isready -q -h 127.0.0.1; do sleep 0.2; done
$in $bin/pgbench -h 127.0.0.1 -U postgres -i -q postgres
$in $bin/pgbench -h 127.0.0.1 -U postgres -c 4 -j 2 -t 200 postgres
$in $bin/psql -h 127.0.0.1 -U postgres -c 'vacuum analyze; ' -c 'checkpoint' -c 'select count(*) from pgbench_accounts' postgres`
	ashLoad = `curl -fsS http://127.0.0.1:8080/sum.txt | grep -q 190
curl -fsS http://127.0.0.1:8080/digests.txt | grep -q serve.sh`
	goLoad = `for i in $(seq 50); do curl -fsS http://127.0.0.1:8080/ >/dev/null; done
curl -fsS -d hello http://127.0.0.1:8080/file | grep -q 2cf24dba
curl -fsS http://127.0.0.1:8080/parallel`
	muslLoad  = `for i in $(seq 20); do printf 'time\nhost\nfile\nquit\n' | busybox nc 127.0.0.1 9000 | grep -qx written; done`
	cacheLoad = `for i in $(seq 20); do printf 'set a 0 0 1\r\n1\r\nget a\r\nstats\r\nquit\r\n' | busybox nc 127.0.0.1 11211 | grep -q '^VALUE a'; done`
	lightLoad = `for i in $(seq 50); do curl -fsS --compressed http://127.0.0.1:8080/ | grep -q 'It works'; done
test "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/nonesuch)" = 404`
)

// TestImages profiles real programs under load: the profile is proven, and
// analysis alone knew of every call that was really made.
func TestImages(t *testing.T) {
	tests := []struct {
		recipe, image, load string
		// executed are programs that must have been seen.
		executed []string
	}{
		{"redis", "redis", redisLoad, []string{"/usr/bin/redis-check-rdb"}},
		{"nginx", "nginx", nginxLoad, []string{"/usr/sbin/nginx"}},
		{"postgres", "postgres", postgresLoad, []string{"/usr/local/bin/docker-entrypoint.sh", "/usr/bin/bash"}},
		{"ash", "confine/ash", ashLoad, []string{"/app/serve.sh", "/bin/busybox"}},
		{"goserver", "confine/goserver", goLoad, []string{"/server"}},
		{"musl", "confine/musl", muslLoad, []string{"/server"}},
		{"memcached", "memcached", cacheLoad, []string{"/usr/local/bin/docker-entrypoint.sh", "/usr/bin/dash", "/usr/bin/memcached"}},
		{"lighttpd", "confine/lighttpd", lightLoad, []string{"/usr/sbin/lighttpd"}},
	}
	var recipes []string
	for _, c := range tests {
		recipes = append(recipes, c.recipe)
	}
	w := newWorld(t, recipes...)
	for _, c := range tests {
		t.Run(c.recipe, func(t *testing.T) {
			result, stderr, code := w.profile(t, "--node", "n1", "--workload", "sh -ec "+quote(c.load), c.image)
			if result == nil {
				t.Fatalf("exit code %d without a result:\n%s", code, stderr)
			}
			if code != 0 {
				t.Errorf("exit code %d, want 0:\n%s", code, stderr)
			}
			checkProven(t, result)
			checkAccuracy(t, result)
			checkNarrowed(t, result)
			for _, path := range c.executed {
				if !slices.ContainsFunc(result.GetExecuted(), func(e *confinev1.Executed) bool { return e.GetPath() == path }) {
					t.Errorf("execution of %s was not seen; seen: %v", path, paths(result))
				}
			}
			t.Logf("%d calls allowed, %d with certain arguments only, %d objects, %.1f s run, %.1f s proof, stages %v", len(result.GetSyscalls()), result.GetNarrowedSyscalls(),
				len(result.GetObjects()), result.GetRun().GetSeconds(), result.GetProof().GetSeconds(), result.GetStages())
			w.mustBeClean(t)
		})
	}
}

// checkProven checks what a result must be that confinectl called done.
func checkProven(t *testing.T, r *confinev1.Result) {
	t.Helper()
	if s := r.GetProof().GetStatus(); s != "proven" {
		t.Errorf("proof is %q, want proven: %s", s, r.GetProof().GetDetail())
	}
	for _, d := range r.GetProof().GetDenied() {
		t.Errorf("refused: %s by %s at %s", d.GetName(), d.GetProcess(), d.GetCaller())
	}
	for _, i := range r.GetIncomplete() {
		t.Errorf("incomplete: %s: %s: %s", i.GetKind(), i.GetObject(), i.GetDetail())
	}
	if n := r.GetRun().GetLost(); n > 0 {
		t.Errorf("%d events were lost", n)
	}
	if r.GetRun().GetEvents() == 0 {
		t.Error("the monitor delivered no event")
	}
	if len(r.GetSyscalls()) == 0 || uint32(len(r.GetSyscalls())) >= r.GetKernelSyscalls() {
		t.Errorf("%d calls allowed of the kernel's %d", len(r.GetSyscalls()), r.GetKernelSyscalls())
	}
	for _, s := range r.GetSyscalls() {
		if len(s.GetReasons()) == 0 {
			t.Errorf("call %s is allowed without a reason", s.GetName())
		}
	}
	if def := r.GetProfile().GetFields()["defaultAction"].GetStringValue(); def != "SCMP_ACT_ERRNO" {
		t.Errorf("default action is %q", def)
	}
}

// checkAccuracy compares the calls that analysis found with those that the
// kernel saw the programs make.
func checkAccuracy(t *testing.T, r *confinev1.Result) {
	t.Helper()
	found := map[string]bool{}
	for _, s := range r.GetSyscalls() {
		found[s.GetName()] = slices.ContainsFunc(s.GetReasons(), func(reason *confinev1.Reason) bool {
			return reason.GetKind() == "site" || reason.GetKind() == "kernel"
		})
	}
	made := map[string]bool{}
	for _, program := range r.GetRun().GetRecorded() {
		if program.GetPath() == "" {
			continue // the runtime's own start
		}
		for _, name := range program.GetSyscalls() {
			made[name] = true
			if !found[name] {
				t.Errorf("%s made call %s, which analysis did not find", program.GetPath(), name)
			}
		}
		if len(program.GetCompat()) > 0 {
			t.Errorf("%s made i386 calls: %v", program.GetPath(), program.GetCompat())
		}
	}
	if len(made) < 10 {
		t.Errorf("the recorder saw %d calls only; it can't be right", len(made))
	}
	t.Logf("%d calls really made", len(made))
}

// checkNarrowed checks that the proof held conditions on arguments, too, and
// none on what the container runtime needs.
func checkNarrowed(t *testing.T, r *confinev1.Result) {
	t.Helper()
	if r.GetNarrowedSyscalls() == 0 {
		t.Error("no call is allowed with certain arguments only")
	}
	narrowed := map[string]bool{}
	for _, s := range r.GetSyscalls() {
		if len(s.GetArgs()) == 0 {
			continue
		}
		narrowed[s.GetName()] = true
		if slices.ContainsFunc(s.GetReasons(), func(reason *confinev1.Reason) bool { return reason.GetKind() == "floor" }) {
			t.Errorf("the runtime makes %s with arguments that nobody measured, and it has conditions", s.GetName())
		}
	}
	if uint32(len(narrowed)) != r.GetNarrowedSyscalls() {
		t.Errorf("%d calls have conditions, %d are said to", len(narrowed), r.GetNarrowedSyscalls())
	}
	for _, rule := range r.GetProfile().GetFields()["syscalls"].GetListValue().GetValues() {
		fields := rule.GetStructValue().GetFields()
		if len(fields["args"].GetListValue().GetValues()) == 0 {
			continue
		}
		for _, name := range fields["names"].GetListValue().GetValues() {
			if !narrowed[name.GetStringValue()] {
				t.Errorf("the profile has conditions for %s, which the result doesn't have", name.GetStringValue())
			}
		}
	}
}

func paths(r *confinev1.Result) []string {
	var list []string
	for _, e := range r.GetExecuted() {
		list = append(list, e.GetPath())
	}
	return list
}

// quote makes one word of a shell command line.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
