package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// A pull is followed by what it brings: the name stands for an older image meanwhile.
func TestPullIsFollowedByItsDigest(t *testing.T) {
	img := func(digest string, s api.ImageStatus) api.Image {
		return api.Image{Name: "localhost:5000/app:v1", Digest: digest, Status: s, Error: ptr("layer 1: digest mismatch"), QueuePosition: ptr(map[bool]int{true: 2}[s == api.ImageStatusPending])}
	}
	const name, byDigest = "GET /images/localhost:5000%2Fapp:v1", "GET /images/localhost:5000%2Fapp@new"
	d := newDaemon(t)
	d.answer("POST /images", img("", api.ImageStatusPending), img("new", api.ImageStatusPulling))
	d.answer("GET /images/{name}", img("old", api.ImageStatusReady), img("new", api.ImageStatusConverting), img("new", api.ImageStatusReady))
	code, out, stderr := d.hale("pull", "localhost:5000/app:v1")
	want := "pending (2 in line) localhost:5000/app:v1\npulling localhost:5000/app:v1\nconverting localhost:5000/app:v1\nready: localhost:5000/app:v1\n"
	if code != 0 || out != "localhost:5000/app:v1\n" || stderr != want {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	const post = `POST /images {"name":"localhost:5000/app:v1"}`
	if got := trimmed(d.requests()); !slices.Equal(got, []string{post, post, name, byDigest, name}) {
		t.Errorf("asked %q", got)
	}

	d = newDaemon(t)
	d.answer("POST /images", img("new", api.ImageStatusPulling))
	d.answer("GET /images/{name}", img("old", api.ImageStatusReady), img("new", api.ImageStatusFailed))
	if code, _, stderr := d.hale("pull", "-q", "localhost:5000/app:v1"); code != exitError || stderr != "hale: image localhost:5000/app:v1 failed: layer 1: digest mismatch\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// A pull whose image somebody deletes says so.
func TestPullOfWhatIsDeleted(t *testing.T) {
	d := newDaemon(t)
	d.answer("POST /images", api.Image{Name: "localhost:5000/app:v1", Digest: "new", Status: api.ImageStatusPulling})
	d.answer("GET /images/{name}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 404, "image_not_found", "there is no image here")
	}))
	if code, _, stderr := d.hale("pull", "-q", "localhost:5000/app:v1"); code != exitError || stderr != "hale: the image localhost:5000/app:v1 was deleted while it was pulled\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func trimmed(lines []string) []string {
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// Credentials go where nobody else reads them, and helpers run when they are asked for.
func TestPullSendsCredentials(t *testing.T) {
	for url, want := range map[string]bool{"": true, "http://127.0.0.1:1": true, "http://localhost:1": true, "http://[::1]:1": true, "https://host.example": true, "http://host.example:4973": false, "http://198.51.100.1:1": false} {
		a := &app{Config: Config{Getenv: func(string) string { return url }}}
		if got := a.private(); got != want {
			t.Errorf("%q is private: %v", url, got)
		}
	}
	ready := api.Image{Name: "app", Digest: "d", Status: api.ImageStatusReady}
	d := newDaemon(t)
	d.answer("POST /images", ready)
	var asked []string
	for _, args := range [][]string{{"pull", "app"}, {"pull", "--credential-helpers", "app"}} {
		env := map[string]string{"HALE_URL": d.URL, "HALE_TOKEN": "secret"}
		Run(args, Config{
			Stdout: io.Discard, Stderr: io.Discard, Getenv: func(k string) string { return env[k] },
			RegistryCredentials: func(_ context.Context, image string, helpers bool) (*api.RegistryCredentials, error) {
				asked = append(asked, image, map[bool]string{true: "with helpers", false: "without"}[helpers])
				return &api.RegistryCredentials{Username: "me", Password: "pw"}, nil
			},
		})
	}
	if !slices.Equal(asked, []string{"app", "without", "app", "with helpers"}) || !strings.Contains(d.requests()[0], `"password":"pw"`) {
		t.Errorf("asked for %q, sent %q", asked, d.requests())
	}
}

// On a terminal a step has a bar.
func TestPullOnATerminal(t *testing.T) {
	screen, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	if err := pty.Setsize(screen, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(&shown, screen) // ends with the terminal's last holder
	}()
	pulling := api.Image{Name: "app", Digest: "d", Status: api.ImageStatusPulling, Progress: &api.ImageProgress{DoneBytes: 3 << 20, TotalBytes: ptr(int64(12 << 20))}}
	more := pulling // than it was said to be
	more.Progress = &api.ImageProgress{DoneBytes: 15 << 20, TotalBytes: ptr(int64(36 << 20))}
	ready := api.Image{Name: "app", Digest: "d", Status: api.ImageStatusReady}
	d := newDaemon(t)
	d.answer("POST /images", pulling)
	d.answer("GET /images/app", pulling, more, ready)
	env := map[string]string{"HALE_URL": d.URL, "HALE_TOKEN": "secret"}
	code := Run([]string{"pull", "app"}, Config{Stdout: io.Discard, Stderr: terminal, Getenv: func(k string) string { return env[k] }})
	terminal.Close()
	<-done
	for _, want := range []string{"pulling app", "━", "3.0 MB of 12 MB"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("exit %d; the terminal does not show %q: %q", code, want, shown.String())
		}
	}
	lines := strings.Split(strings.TrimSpace(shown.String()), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, "36 MB") || strings.Contains(last, "of") {
		t.Errorf("the bar ends as %q, want all of it done", last)
	}
}

// A pull goes on with the next daemon, and so does the command that follows it.
func TestPullOverARestart(t *testing.T) {
	d := newDaemon(t)
	img := api.Image{Name: "app", Digest: "new", Status: api.ImageStatusPulling}
	ready := img
	ready.Status = api.ImageStatusReady
	d.answer("POST /images", img)
	d.answer("GET /images/{name}", img, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "unavailable", "the daemon is stopping") }), ready)
	code, out, stderr := d.hale("pull", "app")
	if code != 0 || out != "app\n" || stderr != "pulling app\nhale: the daemon went away; waiting for it\nready: app\n" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
}

// A name that is taken is told before an image is pulled for it.
func TestTakenNameIsToldFirst(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances/web", fleet()[0])
	d.answer("GET /images/{name}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 404, "image_not_found", "there is no image here")
	}))
	if code, _, stderr := d.hale("run", "--name", "web", "app"); code != exitConflict || stderr != "hale: the name \"web\" is taken by instance aaaa\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// Ctrl-C while an image comes says that it goes on.
func TestInterruptOfPull(t *testing.T) {
	for _, args := range [][]string{{"pull", "app"}, {"run", "--name", "web", "app"}} {
		d := newDaemon(t)
		img := api.Image{Name: "app", Digest: "new", Status: api.ImageStatusPulling}
		d.answer("POST /images", img)
		pulling := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			syscall.Kill(os.Getpid(), syscall.SIGINT)
			json.NewEncoder(w).Encode(img)
		})
		absent := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, 404, "image_not_found", "there is no image here")
		})
		if args[0] == "run" {
			d.answer("GET /images/{name}", absent, pulling, img)
		} else {
			d.answer("GET /images/{name}", pulling, img)
		}
		code, _, stderr := d.hale(args...)
		if code != exitInterrupted || stderr != "pulling app\nhale: app is pulling, and goes on without this command; `hale rmi app` ends it\n" {
			t.Errorf("%v: exit %d, %q", args, code, stderr)
		}
	}
}

// An instance of the name is the command's own only if it is no older: a daemon that waits for the image has not looked at the name yet.
func TestInterruptOfACreate(t *testing.T) {
	for _, age := range []time.Duration{time.Hour, -time.Hour} {
		d := newDaemon(t)
		d.answer("GET /instances/web", api.Instance{ID: "aaaa", Name: "web", State: api.InstanceStateInitializing, CreatedAt: ago(age)})
		d.answer("GET /images/{name}", api.Image{Name: "app", Status: api.ImageStatusReady})
		d.mux.HandleFunc("POST /instances", func(w http.ResponseWriter, r *http.Request) {
			syscall.Kill(os.Getpid(), syscall.SIGINT)
			<-r.Context().Done()
		})
		code, _, stderr := d.hale("run", "--name", "web", "app")
		if code != exitInterrupted || strings.Contains(stderr, "web was made") != (age < 0) {
			t.Errorf("older by %v: exit %d, %q", age, code, stderr)
		}
	}
}

// Ctrl-C while an instance ends says how it is, and to which nothing was done.
func TestInterruptOfRm(t *testing.T) {
	d := newDaemon(t)
	inst := api.Instance{ID: "aaaa", Name: "web", State: api.InstanceStateShutdown}
	d.answer("GET /instances/web", inst)
	d.mux.HandleFunc("DELETE /instances/web", func(w http.ResponseWriter, r *http.Request) {
		syscall.Kill(os.Getpid(), syscall.SIGINT)
		<-r.Context().Done()
	})
	code, out, stderr := d.hale("rm", "web", "db", "job")
	want := "hale: web is Shutdown now, and the daemon goes on with what it has begun; `hale rm -f web` deletes it at once\nhale: nothing was done to db, job\n"
	if code != exitInterrupted || out != "" || stderr != want {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}

	// It came between two of them.
	var said bytes.Buffer
	a := &app{Config: Config{Stdout: io.Discard, Stderr: &said, Getenv: func(string) string { return d.URL }}}
	ctx, cancel := context.WithCancel(t.Context())
	done := func(*hale.Client, string) error { cancel(); return nil }
	if err := a.each(ctx, []string{"web", "db", "job"}, done, leftAs("")); err == nil || said.String() != "hale: nothing was done to db, job\n" {
		t.Errorf("%v, %q", err, said.String())
	}
}

// A name that is in use is told before the image is pulled, which may take long.
func TestRunOfANameInUse(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /images/{name}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 404, "image_not_found", "there is no image here")
	}))
	d.answer("GET /instances/web", api.Instance{ID: "aaaa", Name: "web"})
	code, _, stderr := d.hale("run", "-q", "--name", "web", "localhost:5000/app:v1")
	if code != exitConflict || stderr != "hale: the name \"web\" is taken by instance aaaa\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if got := trimmed(d.requests()); !slices.Equal(got, []string{"GET /images/localhost:5000%2Fapp:v1", "GET /instances/web"}) {
		t.Errorf("asked %q", got)
	}
}
