// Package script runs the real binary against a real daemon, whose machines are played by the fake driver: the .txtar files are the tests,
// and examples of what can be typed. Each script has a daemon and a data directory of its own.
//
// Besides testscript's own commands there are
//
//	exits CODE PROGRAM ARGS…   runs a program that must end with this code
//	fetch [-status N] URL      asks over HTTP, prints the body
//	capture NAME REGEXP        sets a variable to what a group matches in the last standard output
//	listen FILE NAME           begins `hale events --json` into a file, and returns when it follows: an update of NAME has come through
//	watch NAME REGEXP          begins `hale health -w NAME`, waits for a line, and ends it with Ctrl-C, of which it must die
//	heard FILE REGEXP          waits until a line of FILE, which listen began, matches
//	hangup                     ends it with Ctrl-C, of which it must die
package script

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

// bin holds the binary that is tested.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if bin, err = os.MkdirTemp("", "hale-script"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "hale"), "github.com/halevm/hale/cmd/hale")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building hale (make builds the guest agent that it embeds):", err)
		return 1
	}
	return m.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 ".",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"fetch":   fetch,
			"capture": capture,
			"listen":  listen,
			"heard":   heard,
			"hangup":  hangup,
			"watch":   watch,
		},
	})
}

// setup gives a script two images, app.tar and checked.tar, which has a check of its own, and a daemon.
func setup(env *testscript.Env) error {
	if err := writeImage(filepath.Join(env.WorkDir, "app.tar"), "app:v1", nil); err != nil {
		return err
	}
	own := &v1.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Second, Retries: 4}
	if err := writeImage(filepath.Join(env.WorkDir, "checked.tar"), "checked:v1", own); err != nil {
		return err
	}
	env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
	env.Setenv("HALE_DATA_DIR", filepath.Join(env.WorkDir, "data"))
	config := filepath.Join(env.WorkDir, "hale.yaml") // not the one of whoever runs the tests
	if err := os.WriteFile(config, []byte("driver: fake\nlisten: 127.0.0.1:0\n"), 0o600); err != nil {
		return err
	}
	env.Setenv("HALE_CONFIG", config)
	if err := startRegistry(env); err != nil {
		return err
	}
	env.Setenv("NO_COLOR", "1")
	events := new(*exec.Cmd)
	env.Values[listening{}] = events
	env.Defer(func() {
		if cmd := *events; cmd != nil && cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return startDaemon(env)
}

// startRegistry gives a script a registry, $REGISTRY, which has app:v1 for anybody and private/app:v1 for the user me with
// the password secret.
func startRegistry(env *testscript.Env) error {
	reg := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch private := strings.HasPrefix(r.URL.Path, "/v2/private/"); {
		case private && r.Header.Get("Authorization") == "" && r.Method == http.MethodGet:
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
		case private && r.Method == http.MethodGet && (user != "me" || password != "secret"):
			w.WriteHeader(http.StatusForbidden)
		case strings.HasPrefix(r.URL.Path, "/v2/limited/"):
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			reg.ServeHTTP(w, r)
		}
	}))
	env.Defer(srv.Close)
	addr := strings.TrimPrefix(srv.URL, "http://")
	env.Setenv("REGISTRY", addr)
	img, err := serving(nil)
	if err != nil {
		return err
	}
	for _, repo := range []string{"app", "private/app"} {
		tag, err := name.NewTag(addr + "/" + repo + ":v1")
		if err == nil {
			err = remote.Write(tag, img)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeImage writes what `docker save` writes of an image that serves port 80.
func writeImage(file, ref string, check *v1.HealthConfig) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	img, err := serving(check)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, tag, img)
}

// serving is an image whose program the fake driver knows, with a check of its own or none.
func serving(check *v1.HealthConfig) (v1.Image, error) {
	img, err := random.Image(1024, 2)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config = v1.Config{Cmd: []string{"serve", "80"}, Env: []string{"PATH=/bin", "FROM=image"}, WorkingDir: "/srv", Healthcheck: check}
	return mutate.ConfigFile(img, config)
}

// startDaemon starts a daemon on a free port and ends it, in order, with the script.
func startDaemon(env *testscript.Env) error {
	cmd := exec.Command(filepath.Join(bin, "hale"), "serve")
	cmd.Env = env.Vars
	cmd.Dir = env.WorkDir
	log, err := os.Create(filepath.Join(env.WorkDir, "daemon.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "hale is ready at http://127.0.0.1:") {
		cmd.Process.Kill()
		cmd.Wait()
		b, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the daemon says %q, %v\n%s", line, err, b)
	}
	env.Setenv("DAEMON_URL", strings.Fields(line)[4])
	env.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		defer killer.Stop()
		if err := cmd.Wait(); err != nil {
			b, _ := os.ReadFile(log.Name())
			env.T().Log(fmt.Sprintf("the daemon ended with %v\n%s", err, b))
			env.T().FailNow()
		}
	})
	return nil
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("ended with %d, want %d", got, want)
	}
}

func fetch(ts *testscript.TestScript, neg bool, args []string) {
	status := 200
	if len(args) == 3 && args[0] == "-status" {
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		status, args = n, args[2:]
	}
	if len(args) != 1 {
		ts.Fatalf("usage: fetch [-status N] URL")
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(args[0])
	if neg {
		if err == nil {
			ts.Fatalf("%s answers %s", args[0], resp.Status)
		}
		return
	}
	ts.Check(err)
	defer resp.Body.Close()
	if resp.StatusCode != status {
		ts.Fatalf("%s answers %s, want %d", args[0], resp.Status, status)
	}
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}

func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("no match for %q in %q", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], m[1])
}

// listening is the key of the process that listen began.
type listening struct{}

func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: listen FILE NAME")
	}
	file := ts.MkAbs(args[0])
	out, err := os.Create(file)
	ts.Check(err)
	defer out.Close()
	cmd := exec.Command(filepath.Join(bin, "hale"), "events", "--json")
	for _, key := range []string{"PATH", "HOME", "HALE_DATA_DIR", "HALE_CONFIG"} {
		cmd.Env = append(cmd.Env, key+"="+ts.Getenv(key))
	}
	cmd.Stdout = out
	ts.Check(cmd.Start())
	*ts.Value(listening{}).(**exec.Cmd) = cmd
	for deadline := time.Now().Add(time.Minute); ; {
		ts.Check(ts.Exec("hale", "update", args[1], "--ttl", "1h"))
		if info, err := os.Stat(file); err != nil || info.Size() > 0 {
			ts.Check(err)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no event of an update came")
		}
	}
}

func heard(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: heard FILE REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for deadline := time.Now().Add(time.Minute); !re.MatchString(ts.ReadFile(args[0])); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("no line of %s matches %q:\n%s", args[0], args[1], ts.ReadFile(args[0]))
		}
	}
}

func hangup(ts *testscript.TestScript, _ bool, _ []string) {
	cmd := *ts.Value(listening{}).(**exec.Cmd)
	ts.Check(cmd.Process.Signal(os.Interrupt))
	cmd.Wait()
	interrupted(ts, cmd)
}

func watch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: watch NAME REGEXP")
	}
	want := regexp.MustCompile(args[1])
	cmd := exec.Command(filepath.Join(bin, "hale"), "health", "-w", args[0])
	for _, key := range []string{"PATH", "HOME", "HALE_DATA_DIR", "HALE_CONFIG", "LANG"} {
		cmd.Env = append(cmd.Env, key+"="+ts.Getenv(key))
	}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	killer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer killer.Stop()
	found := false
	lines := bufio.NewScanner(out)
	for !found && lines.Scan() {
		ts.Logf("%s", lines.Text())
		found = want.MatchString(lines.Text())
	}
	if !found {
		cmd.Wait()
		ts.Fatalf("no line matches %q", args[1])
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	for lines.Scan() { // what was on its way
		ts.Logf("%s", lines.Text())
	}
	cmd.Wait()
	interrupted(ts, cmd)
}

// interrupted wants cmd ended by the signal itself, which a shell calls 130: it ends the shell's loop or script, too.
func interrupted(ts *testscript.TestScript, cmd *exec.Cmd) {
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		ts.Fatalf("%v ended with %v after Ctrl-C, want it ended by SIGINT", cmd.Args, cmd.ProcessState)
	}
}
