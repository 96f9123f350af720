package cli

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with testdata/NAME, and writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestPs(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances", func() any { return fleet() })
	code, out, stderr := d.hale("ps")
	if code != 0 || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	golden(t, "ps.txt", out)

	_, out, _ = d.hale("ps", "-q")
	if out != "aaaa\nbbbb\ncccc\ndddd\neeee\nffff\n" {
		t.Errorf("ps -q: %q", out)
	}
	_, out, _ = d.hale("ps", "--json")
	var list []api.Instance
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 6 || list[1].Name != "db" {
		t.Errorf("ps --json: %v, %s", err, out)
	}
	if _, _, stderr := d.hale("ps", "--filter", "colour=red"); !strings.Contains(stderr, "state=…, health=… or tag=KEY=VALUE") {
		t.Errorf("a wrong filter: %q", stderr)
	}
	d.hale("ps", "--filter", "health=Unhealthy", "--state", "running", "--tag", "a=b")
	last := d.requests()[len(d.requests())-1]
	if !strings.Contains(last, "state=Running") || !strings.Contains(last, "health=unhealthy") || !strings.Contains(last, "tags") {
		t.Errorf("asked %q", last)
	}
}

// The state of one that has ended says what a person must know: that it was not asked for.
func TestStateOfWhatHasEnded(t *testing.T) {
	for want, inst := range map[string]api.Instance{
		"Running":               {State: api.InstanceStateRunning, ExitReason: "guest_panic"},
		"Stopped":               {State: api.InstanceStateStopped, ExitReason: "stopped", ExitCode: ptr(0)},
		"Stopped (3)":           {State: api.InstanceStateStopped, ExitReason: "program_exited", ExitCode: ptr(3)},
		"Stopped (guest panic)": {State: api.InstanceStateStopped, ExitReason: "guest_panic"},
	} {
		if got := stateCell(inst).text; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := stateCell(api.Instance{State: api.InstanceStateStopped, ExitReason: "killed"}).text; got != "Stopped" {
		t.Errorf("killed on request: %q", got)
	}
}

func TestEmptyLists(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances", []api.Instance{})
	d.answer("GET /images", []api.Image{})
	if _, out, _ := d.hale("ps", "--json"); out != "[]\n" {
		t.Errorf("ps --json of nothing: %q", out)
	}
	if _, out, _ := d.hale("ps"); out != "NAME   IMAGE   STATE   HEALTH   PORTS   AGE\n" {
		t.Errorf("ps of nothing: %q", out)
	}
	if _, out, _ := d.hale("images", "--json"); out != "[]\n" {
		t.Errorf("images --json of nothing: %q", out)
	}
}

func TestImages(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /images", func() any {
		return []api.Image{
			{Name: "docker.io/library/nginx:latest", Status: api.ImageStatusReady, SizeBytes: ptr(int64(170 << 20)), Digest: "sha256:0123456789abcdef0123", CreatedAt: ago(time.Hour)},
			{Name: "ghcr.io/a/b:v1", Status: api.ImageStatusConverting, Progress: &api.ImageProgress{DoneBytes: 42, TotalBytes: ptr(int64(100))}, CreatedAt: ago(time.Second)},
			{Name: "ghcr.io/a/c:v1", Status: api.ImageStatusFailed, Error: ptr("digest mismatch\x07"), CreatedAt: ago(time.Minute)},
			{Name: "ghcr.io/a/d:v1", Status: api.ImageStatusPending, QueuePosition: ptr(2), CreatedAt: ago(time.Minute)},
		}
	})
	_, out, _ := d.hale("images")
	golden(t, "images.txt", out)
}

func TestHealth(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances/web/health", func() any {
		return api.InstanceHealth{
			Status: api.HealthStateUnhealthy, Since: since(14 * time.Second), ConsecutiveFailures: 3, LastError: ptr("connection refused"), LastFailureAt: since(4 * time.Second),
			HealthCheck:       json.RawMessage(`{"type":"http","http":{"port":80,"path":"/healthz"},"interval":"10s","timeout":"2s","start_period":"30s","failure_threshold":3}`),
			HealthCheckSource: api.HealthCheckSourceRequest,
			Results: []api.HealthResult{
				{Outcome: "inconclusive", Time: ago(50 * time.Second)}, {Outcome: "success", Time: ago(40 * time.Second), DurationMs: 0.8}, {Outcome: "success", Time: ago(30 * time.Second), DurationMs: 2},
				{Outcome: "failure", Time: ago(20 * time.Second)}, {Outcome: "failure", Time: ago(4 * time.Second), DurationMs: 1.23, Reason: "connection refused", Output: "line 1\nline\x1b[1m 2\n"},
			},
			Transitions: []api.HealthTransition{
				{Time: ago(40 * time.Second), From: api.HealthStateStarting, To: api.HealthStateHealthy},
				{Time: ago(14 * time.Second), From: api.HealthStateHealthy, To: api.HealthStateUnhealthy, Reason: "connection refused"},
			},
		}
	})
	_, out, _ := d.hale("health", "web")
	golden(t, "health.txt", out)

	d.answer("POST /instances/web/health/check", api.HealthResult{Outcome: "failure", DurationMs: 3, Reason: "status 500, expected 200"})
	code, out, _ := d.hale("health", "web", "--now")
	if code != exitError || out != "failure in 3ms: status 500, expected 200\n" {
		t.Errorf("health --now: exit %d, %q", code, out)
	}
}

func TestRun(t *testing.T) {
	d := newDaemon(t)
	d.answer("POST /instances", fleet()[0])
	code, out, stderr := d.hale("run", "--name", "web", "-p", "8080:80", "nginx")
	if code != 0 || out != "web\n" || stderr != "" {
		t.Errorf("run: exit %d, %q, %q", code, out, stderr)
	}
	want := `POST /instances {"image":"nginx","name":"web","network":{"ports":[{"guest_port":80,"host_port":8080}]}}`
	if got := d.requests()[1]; strings.TrimSpace(got) != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	if _, out, _ = d.hale("create", "-q", "nginx"); out != "aaaa\n" {
		t.Errorf("create -q: %q", out)
	}
}

func TestRunWaits(t *testing.T) {
	d := newDaemon(t)
	d.answer("POST /instances", fleet()[2])
	d.answer("GET /instances/cccc", fleet()[2])
	healthy := &api.InstanceHealthStatus{Status: api.HealthStateHealthy}
	d.answer("GET /instances/cccc/wait", api.WaitForStateResponse{State: api.InstanceStateRunning, HealthStatus: healthy})
	if code, out, stderr := d.hale("run", "--wait", "new"); code != 0 || out != "new\n" {
		t.Errorf("run --wait: exit %d, %q, %q", code, out, stderr)
	}
	if got := d.requests()[2]; !strings.Contains(got, "/wait?health=healthy") {
		t.Errorf("asked %q", got)
	}
}

// An image that is still on its way is waited for, and its failure is the command's.
func TestRunWaitsForTheImage(t *testing.T) {
	notReady := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		refuse(w, 409, "image_not_ready", "the image is being pulled")
	})
	image := func(s api.ImageStatus) api.Image { return api.Image{Name: "nginx", Status: s, Error: ptr("disk full")} }
	d := newDaemon(t)
	d.answer("POST /instances", notReady, fleet()[0])
	d.answer("GET /images/nginx", image(api.ImageStatusPulling), image(api.ImageStatusPulling), image(api.ImageStatusConverting), image(api.ImageStatusReady))
	code, out, stderr := d.hale("run", "nginx")
	if code != 0 || out != "web\n" || stderr != "pulling nginx\nconverting nginx\nready: nginx\n" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}

	d = newDaemon(t)
	d.answer("POST /instances", notReady)
	d.answer("GET /images/nginx", image(api.ImageStatusPulling), image(api.ImageStatusFailed))
	if code, _, stderr := d.hale("run", "nginx"); code != exitError || !strings.Contains(stderr, "image nginx failed: disk full") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestWait(t *testing.T) {
	status := func(s api.HealthState, why string) *api.InstanceHealthStatus {
		return &api.InstanceHealthStatus{Status: s, LastError: ptr(why)}
	}
	tests := []struct {
		name   string
		answer []any
		args   []string
		code   int
		say    string
	}{
		{"healthy", []any{api.WaitForStateResponse{State: "Running", HealthStatus: status("healthy", "")}}, []string{"--healthy"}, exitOK, ""},
		{"a state", []any{api.WaitForStateResponse{State: "Stopped"}}, []string{"--state", "Stopped"}, exitOK, ""},
		{"too late", []any{api.WaitForStateResponse{State: "Running", TimedOut: true, HealthStatus: status("unhealthy", "connection refused")}},
			[]string{"--healthy", "--timeout", "1ms"}, exitTimeout, "web is not healthy after 1ms: it is Running, unhealthy: connection refused"},
		{"cannot be", []any{api.WaitForStateResponse{State: "Stopped", StateError: ptr("the program ended"), HealthStatus: status("unknown", "")}},
			[]string{"--healthy"}, exitTimeout, "web will not be healthy: it is Stopped, unknown (the program ended)"},
		{"deleted", []any{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "not_found", "no instance aaaa") })},
			[]string{"--healthy"}, exitTimeout, "web will not be healthy: the instance was deleted"},
		{"longer than one request", []any{api.WaitForStateResponse{State: "Running", TimedOut: true}, api.WaitForStateResponse{State: "Stopped"}},
			[]string{"--state", "Stopped", "--timeout", "1h"}, exitOK, ""},
		{"neither", []any{nil}, nil, exitUsage, "say what to wait for"},
		{"both", []any{nil}, []string{"--healthy", "--state", "Running"}, exitUsage, "say what to wait for"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDaemon(t)
			d.answer("GET /instances/web", fleet()[0])
			d.answer("GET /instances/aaaa/wait", tt.answer...)
			code, _, stderr := d.hale(append([]string{"wait", "web"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.say) || tt.say == "" && stderr != "" {
				t.Errorf("exit %d, %q; want %d, %q", code, stderr, tt.code, tt.say)
			}
		})
	}
}

// With several names a command goes on after an error, and ends with the code of the first.
func TestSeveralNames(t *testing.T) {
	d := newDaemon(t)
	d.answer("DELETE /instances/a", nil)
	d.answer("DELETE /instances/c", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 409, "invalid_state", "c is falling asleep") }))
	d.answer("DELETE /instances/d", nil)
	code, out, stderr := d.hale("rm", "-f", "a", "b", "c", "d")
	if code != exitNotFound || out != "a\nd\n" || !strings.Contains(stderr, "there is no instances/b") || !strings.Contains(stderr, "falling asleep") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	if got := d.requests()[0]; got != "DELETE /instances/a?graceful_shutdown=false" {
		t.Errorf("asked %q", got)
	}
	d.answer("DELETE /images/{name}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 409, "conflict", "web uses it") }))
	if code, _, stderr := d.hale("rmi", "nginx"); code != exitConflict || stderr != "hale: web uses it\n" {
		t.Errorf("rmi: exit %d, %q", code, stderr)
	}
}

// inspect goes on after a name that is none, as the others do.
func TestInspectOfSeveral(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances/web", fleet()[0])
	for args, want := range map[string]string{"nobody web": "web", "web nobody": "web", "nobody none": ""} {
		code, out, stderr := d.hale(append([]string{"inspect"}, strings.Fields(args)...)...)
		var list []api.Instance
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != exitNotFound || !strings.Contains(stderr, "there is no instances/nobody") {
			t.Errorf("%s: exit %d, %q, %q", args, code, out, stderr)
		}
		if got := len(list); got == 0 && want != "" || got > 0 && list[0].Name != want {
			t.Errorf("%s: %+v", args, list)
		}
	}
}

func TestUpdate(t *testing.T) {
	d := newDaemon(t)
	d.answer("PATCH /instances/web", fleet()[0])
	imageChecked, none := fleet()[0], fleet()[0]
	imageChecked.HealthCheck, imageChecked.HealthCheckSource = json.RawMessage(`{"type":"exec","exec":{"command":["a"]},"interval":"30s"}`), api.HealthCheckSourceImage
	none.HealthCheck, none.HealthCheckSource = json.RawMessage(`{"type":"none"}`), api.HealthCheckSourceRequest
	none.HealthStatus = &api.InstanceHealthStatus{Status: api.HealthStateDisabled}
	asked := imageChecked
	asked.HealthCheck, asked.HealthCheckSource = json.RawMessage(`{"type":"tcp","tcp":{"port":80},"interval":"10s","failure_threshold":3}`), api.HealthCheckSourceRequest
	d.answer("GET /instances/web", imageChecked, none, asked)
	for _, tt := range []struct{ args, want string }{
		{"--health-tcp :80 --health-interval 5s", `{"health_check":{"interval":"5s","tcp":{"port":80}}}`},
		{"--no-healthcheck", `{"health_check":{"type":"none"}}`},
		{"--image-healthcheck", `{"health_check":null}`},
		{"--health-retries 5", `{"health_check_override":{"failure_threshold":5}}`},
		{"--health-retries 5", `{"health_check_override":{"failure_threshold":5}}`},
		{"--health-retries 5 --health-timeout 1s", `{"health_check":{"failure_threshold":5,"interval":"10s","tcp":{"port":80},"timeout":"1s","type":"tcp"}}`},
		{"--health-cmd true --health-retries 5", `{"health_check_override":{"cmd":"true","failure_threshold":5}}`},
		{"-e A=1 --unset-env B", `{"env":{"A":"1","B":null}}`},
		{"--ttl 0s", `{"ttl":"0s"}`},
	} {
		code, _, stderr := d.hale(append([]string{"update", "web"}, strings.Fields(tt.args)...)...)
		got := d.requests()[len(d.requests())-1]
		if code != 0 || strings.TrimSpace(strings.TrimPrefix(got, "PATCH /instances/web")) != tt.want {
			t.Errorf("update %s: exit %d, %s, asked %s; want %s", tt.args, code, stderr, got, tt.want)
		}
	}
	if code, _, stderr := d.hale("update", "web"); code != exitUsage || !strings.Contains(stderr, "nothing to change") {
		t.Errorf("an empty update: exit %d, %q", code, stderr)
	}
}

func TestStat(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances/web/stat",
		api.PathInfo{Exists: true, IsSymlink: true, Mode: 0o777, Size: 9, LinkTarget: ptr("/usr\x1b[1m")},
		api.PathInfo{Exists: true, IsFile: true, Mode: 0o4755, Size: 1234},
		api.PathInfo{})
	if _, out, _ := d.hale("stat", "web", "/lib"); out != "lrwxrwxrwx  9  /lib → /usr[1m\n" {
		t.Errorf("a link: %q", out)
	}
	if _, out, _ := d.hale("stat", "web", "/bin/su"); out != "-rwsr-xr-x  1234  /bin/su\n" {
		t.Errorf("a file: %q", out)
	}
	if code, _, stderr := d.hale("stat", "web", "/nothing"); code != exitNotFound || stderr != "hale: there is no /nothing in web\n" {
		t.Errorf("nothing: exit %d, %q", code, stderr)
	}
}

func TestLogs(t *testing.T) {
	d := newDaemon(t)
	d.mux.HandleFunc("GET /instances/web/logs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, ": still here\n\ndata: \"raw \\u001b[1mbytes\"\n\ndata: \"\"\n\ndata: \"last\"\n\n")
	})
	code, out, _ := d.hale("logs", "--source", "hale", "--tail", "5", "web")
	if code != 0 || out != "raw \x1b[1mbytes\n\nlast\n" {
		t.Errorf("logs: exit %d, %q", code, out)
	}
	if got := d.requests()[0]; !strings.Contains(got, "source=hypeman") || !strings.Contains(got, "tail=5") {
		t.Errorf("asked %q", got)
	}
	for _, args := range [][]string{{"--tail", "x"}, {"--tail", "-1"}, {"--source", "syslog"}} {
		if code, _, _ := d.hale(append([]string{"logs", "web"}, args...)...); code != exitUsage {
			t.Errorf("logs %v: exit %d", args, code)
		}
	}
}

// A log that is followed goes on where it was when the daemon comes back, also where no line had come yet, and ends with its instance.
func TestLogsResume(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances/web", fleet()[0])
	say := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, strings.ReplaceAll(text, "PLACE", r.Header.Get("Last-Event-ID")))
			w.(http.Flusher).Flush()
			if strings.Contains(text, "last") {
				return
			}
			panic(http.ErrAbortHandler) // as a daemon that stops, or is killed
		}
	}
	d.answer("GET /instances/aaaa/logs", say("id: 7-0\n\n"), say("id: 7-4\ndata: \"behind PLACE\"\n\n"), say("id: 7-9\ndata: \"behind PLACE, the last\"\n\n"))
	code, out, stderr := d.hale("logs", "-f", "-n", "0", "web")
	if code != 0 || out != "behind 7-0\nbehind 7-4, the last\n" || strings.Count(stderr, "waiting for it") != 2 {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}

	d = newDaemon(t)
	d.answer("GET /instances/web", fleet()[0])
	d.answer("GET /instances/aaaa/logs", say("id: 7-0\n\n"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "not_found", "no") }))
	if code, _, stderr := d.hale("logs", "-f", "web"); code != exitNotFound || !strings.HasSuffix(stderr, "hale: there is no web any more\n") {
		t.Errorf("deleted meanwhile: exit %d, %q", code, stderr)
	}
}

// A stream of events goes on where it was when the daemon comes back.
func TestEventsResume(t *testing.T) {
	d := newDaemon(t)
	event := func(id, kind, data string) string {
		return fmt.Sprintf("id: %[1]s\nevent: %[2]s\ndata: {\"id\":%[1]q,\"type\":%[2]q,\"time\":\"2026-01-02T03:04:05.678Z\",\"instance\":\"aaaa\",\"name\":\"web\",\"data\":%[3]s}\n\n", id, kind, data)
	}
	d.answer("GET /events",
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, event("e-1", "state", `{"from":"Initializing","to":"Running"}`), event("e-2", "health", `{"from":"starting","to":"unhealthy","reason":"refused\u0007"}`))
		}),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, event(r.Header.Get("Last-Event-ID")+"+", "created", `{"image":"nginx"}`), event("e-4", "state", `{"from":"Running","to":"Stopped","exit_code":3,"reason":"program_exited"}`))
		}),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { refuse(w, 500, "internal", "over") }),
	)
	code, out, stderr := d.hale("events", "-f")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line[2:], ":") {
			t.Errorf("a line without its time: %q", line)
		}
		out = strings.Replace(out, line[:13], "", 1)
	}
	want := "web state Initializing → Running\nweb health starting → unhealthy: refused\nweb created nginx\nweb state Running → Stopped (exit 3): program_exited\n"
	if code != exitError || out != want || !strings.Contains(stderr, "waiting for it") {
		t.Errorf("exit %d, %q, want %q; %q", code, out, want, stderr)
	}
}

// A daemon that restarts before anything has happened is waited for too: it said where its log was.
func TestEventsResumeBeforeTheFirst(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /events",
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "id: e-41\n\n") }),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			refuse(w, 500, "internal", "from "+r.Header.Get("Last-Event-ID"))
		}),
	)
	if code, out, stderr := d.hale("events", "-f"); code != exitError || out != "" || !strings.Contains(stderr, "waiting for it") || !strings.Contains(stderr, "from e-41") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
}

func TestImportOfSeveral(t *testing.T) {
	d := newDaemon(t)
	first := api.Image{Name: "docker.io/library/app:v1", Status: api.ImageStatusReady, Imported: []string{"docker.io/library/app:v1", "docker.io/library/other:v1"}}
	d.answer("POST /images/import", first)
	d.answer("GET /images/{name}", api.Image{Name: "docker.io/library/other:v1", Status: api.ImageStatusReady})
	if code, out, stderr := d.haleIn("a tar of two images", "import", "-q", "-"); code != 0 || out != "docker.io/library/app:v1\ndocker.io/library/other:v1\n" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
}

func TestImport(t *testing.T) {
	d := newDaemon(t)
	image := func(s api.ImageStatus) api.Image {
		return api.Image{Name: "docker.io/library/app:v1", Status: s, Digest: "sha256:00"}
	}
	d.answer("POST /images/import", image(api.ImageStatusConverting))
	d.answer("GET /images/{name}", image(api.ImageStatusReady))
	file := filepath.Join(t.TempDir(), "app.tar")
	os.WriteFile(file, []byte("tar of an image"), 0o600)
	code, out, stderr := d.hale("import", file, "--name", "app:v1")
	if code != 0 || out != "docker.io/library/app:v1\n" || stderr != "reading app.tar\nconverting docker.io/library/app:v1\nready: docker.io/library/app:v1\n" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	if got := d.requests()[0]; got != "POST /images/import?name=app%3Av1 tar of an image" {
		t.Errorf("asked %q", got)
	}
	code, _, _ = d.haleIn("from a pipe", "import", "-", "-q")
	if got := d.requests()[2]; code != 0 || got != "POST /images/import from a pipe" {
		t.Errorf("from standard input: exit %d, %q", code, got)
	}
	if code, _, stderr := d.hale("import", "/nonexistent.tar"); code != exitNotFound || !strings.Contains(stderr, "/nonexistent.tar: no such file") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if code, _, stderr := d.hale("import", t.TempDir()); code != exitUsage || !strings.Contains(stderr, "make a tar of it") {
		t.Errorf("a directory: exit %d, %q", code, stderr)
	}
}

// What the daemon refuses of a check is told by the flag that said it.
func TestRefusalsNameTheFlag(t *testing.T) {
	for _, tt := range []struct{ args, field, message, want string }{
		{"--health-tcp 80 --health-retries 2000", "health_check.failure_threshold", "must be a whole number from 1 to 1000", "--health-retries: must be a whole number"},
		{"--health-start-interval 9h", "health_check_override.start_interval", "must be at most the interval in force, 30s", "--health-start-interval: must be at most the interval in force, 30s"},
		{"--no-healthcheck", "network.allow[0]", "loopback is the host itself", "--allow-net: loopback is the host itself"},
		{"--no-healthcheck", "vcpus", "1 to 64", "--cpus: 1 to 64"},
		{"--health-grpc :80", "health_check.grpc", "not built yet", "--health-grpc: not built yet"},
		{"--health-interval 5s --health-timeout 1s", "health_check_override", "the image has no check of its own to change", "--health-interval, --health-timeout: the image has no check of its own: say what to check too"},
	} {
		d := newDaemon(t)
		no := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 400, "invalid_health_check", "name: bad; "+tt.field+": "+tt.message, api.Detail{Field: "name", Message: "bad"}, api.Detail{Field: tt.field, Message: tt.message})
		})
		d.answer("POST /instances", no)
		d.answer("PATCH /instances/nginx", no)
		d.answer("GET /instances/nginx", fleet()[0])
		for _, cmd := range []string{"run", "update"} {
			code, _, stderr := d.hale(append(append([]string{cmd}, strings.Fields(tt.args)...), "nginx")...)
			if code != exitUsage || !strings.HasPrefix(stderr, "hale: --name: bad; "+tt.want) || strings.Contains(stderr, "health_check") {
				t.Errorf("%s %s: exit %d, %q", cmd, tt.args, code, stderr)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	d := newDaemon(t)
	d.answer("POST /instances", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 400, "invalid_health_check", "the health check is not valid",
			api.Detail{Field: "health_check.http.port", Message: "1 to 65535"}, api.Detail{Field: "health_check.interval", Message: "100ms to 24h"})
	}))
	code, out, stderr := d.hale("run", "nginx")
	want := "hale: the health check is not valid\n  --health-http: port 1 to 65535\n  --health-interval: 100ms to 24h\n"
	if code != exitUsage || out != "" || stderr != want {
		t.Errorf("exit %d, %q, %q; want %q", code, out, stderr, want)
	}
	d.answer("GET /images/away", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "image_not_found", "no") }))
	d.answer("POST /images", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 503, "registry_unavailable", "the registry cannot be reached")
	}))
	tests := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"inspect", "nobody"}, exitNotFound, "there is no instances/nobody"},
		{[]string{"inspect"}, exitUsage, "usage: hale inspect NAME..."},
		{[]string{"ps", "extra"}, exitUsage, "usage: hale ps"},
		{[]string{"rm"}, exitUsage, "something is missing; usage: hale rm NAME..."},
		{[]string{"logs", "a", "b"}, exitUsage, "hale logs does not take 2 arguments; usage: hale logs NAME"},
		{[]string{"help", "pss"}, exitUsage, `there is no command "pss"; did you mean "ps"?`},
		{[]string{"stat", "web", "etc"}, exitUsage, `"etc" is not a path from the guest's root on`},
		{[]string{"run", "away"}, exitError, "the registry cannot be reached"},
		{[]string{"pss"}, exitUsage, `there is no command "pss"; did you mean "ps"?`},
		{[]string{"ps", "--bogus"}, exitUsage, "unknown flag: --bogus (see `hale ps --help`)"},
		{[]string{"ps", "--state", "runing"}, exitUsage, `--state "runing": one of Created, Initializing, Running,`},
		{[]string{"wait", "--health", "well", "web"}, exitUsage, `--health "well": one of healthy, unhealthy,`},
		{[]string{"wait", "--healthy", "--timeout", "-1s", "web"}, exitUsage, "--timeout is 0 or more"},
		{[]string{"run", "--wait", "--timeout", "-1s", "nginx"}, exitUsage, "--timeout is 0 or more"},
		{[]string{"events", "--type", "state,helth"}, exitUsage, `--type "helth": one of created,`},
	}
	for _, tt := range tests {
		if code, _, stderr := d.hale(tt.args...); code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("hale %v: exit %d, %q; want %d, %q", tt.args, code, stderr, tt.code, tt.want)
		}
	}
}

// The daemon's log is named once.
func TestOurOwnFault(t *testing.T) {
	d := newDaemon(t)
	for message, want := range map[string]string{
		"the log says what (request R1)": "hale: the log says what (request R1)\n",
		"no":                             "hale: no\n  the daemon's log says more about request R1\n",
	} {
		d.mux.HandleFunc("GET /instances/"+message[:2], func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			json.NewEncoder(w).Encode(api.ErrorBody{Code: "internal", Message: message, RequestID: "R1"})
		})
		if code, _, stderr := d.hale("inspect", message[:2]); code != exitError || stderr != want {
			t.Errorf("exit %d, %q, want %q", code, stderr, want)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	d := newDaemon(t)
	d.Close()
	code, _, stderr := d.hale("ps")
	if code != exitUnreachable || !strings.Contains(stderr, "the daemon does not answer at "+d.URL) || !strings.Contains(stderr, "start it with `hale serve`") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	var out, errs strings.Builder
	c := Config{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	c.LocalDaemon = func() (string, string, error) { return "", "", errors.New("no daemon runs: start one") }
	if code := Run([]string{"ps"}, c); code != exitUnreachable || !strings.Contains(errs.String(), "hale: no daemon runs: start one") {
		t.Errorf("exit %d, %q", code, errs.String())
	}
	for _, url := range []string{"127.0.0.1:1", "junk"} {
		errs.Reset()
		c.Getenv = func(name string) string { return map[string]string{"HALE_URL": url}[name] }
		if code := Run([]string{"ps"}, c); code != exitUsage || !strings.HasSuffix(errs.String(), "want http://HOST:PORT or https://HOST:PORT\n") {
			t.Errorf("%s: exit %d, %q", url, code, errs.String())
		}
	}
}

func TestLocalDaemon(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances", []api.Instance{})
	var out, errs strings.Builder
	c := Config{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	c.LocalDaemon = func() (string, string, error) { return d.URL, "secret", nil }
	if code := Run([]string{"ps"}, c); code != 0 {
		t.Errorf("exit %d, %q", code, errs.String())
	}
	c.LocalDaemon = func() (string, string, error) { return d.URL, "another", nil }
	if code := Run([]string{"ps"}, c); code != exitError || !strings.Contains(errs.String(), "set HALE_TOKEN") {
		t.Errorf("a wrong token: exit %d, %q", code, errs.String())
	}
}

func TestHelp(t *testing.T) {
	d := newDaemon(t)
	code, out, _ := d.hale()
	if code != 0 || !strings.Contains(out, "Instances:") || !strings.Contains(out, "exit-codes") {
		t.Errorf("help: exit %d\n%s", code, out)
	}
	if _, again, _ := d.hale("help"); again != out {
		t.Errorf("hale help says something else than hale:\n%s", again)
	}
	if _, out, _ = d.hale("help", "exit-codes"); !strings.Contains(out, "124  the program took longer") {
		t.Errorf("help exit-codes:\n%s", out)
	}
}

// The command line knows the API and its client, and nothing else of the project.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/halevm/hale/internal/cli").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"github.com/halevm/hale/api", "github.com/halevm/hale/sdk/go", "github.com/halevm/hale/internal/cli"}
	for p := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(p, "github.com/halevm/hale/") && !slices.Contains(allowed, p) {
			t.Errorf("internal/cli depends on %s", p)
		}
	}
}
