// Command demo shows what hale does, in less than a minute: an image becomes a machine, and its health is known from
// then on. It runs the program in bin/hale with a data directory of its own, and speaks to it through sdk/go.
//
//	make demo           everything, and cleans up
//	KEEP=1 make demo    leaves the daemon running and says how to reach it
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

const (
	image = "hale-example/web"
	name  = "demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	d := demo{ctx: ctx, keep: os.Getenv("KEEP") != ""}
	err := d.run()
	d.cleanUp(err)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type demo struct {
	ctx    context.Context
	keep   bool
	binary string
	dir    string // the daemon's data directory
	daemon *exec.Cmd
	log    *os.File
	client *hale.Client
	token  string
	start  time.Time
	port   int
}

func (d *demo) run() error {
	if err := d.prepare(); err != nil {
		return err
	}
	d.start = time.Now()
	if err := d.serve(); err != nil {
		return err
	}
	d.say("the daemon answers at %s", d.client.URL())
	if err := d.importImage(); err != nil {
		return err
	}
	if err := d.live(); err != nil {
		return err
	}
	d.farewell()
	return nil
}

// prepare gets everything that takes no part in what is shown.
func (d *demo) prepare() (err error) {
	if d.binary, err = filepath.Abs("bin/hale"); err != nil {
		return err
	}
	cache, err := filepath.Abs(".cache/hale")
	if err != nil {
		return err
	}
	title("Setting up what this host is missing")
	if err := d.command(d.binary, "setup", "--data-dir", cache); err != nil {
		return err
	}
	title("Making an image of examples/web, without a container tool")
	if d.dir, err = os.MkdirTemp("", "hale-demo-"); err != nil {
		return err
	}
	// The kernel is the same for every data directory.
	if err := os.Symlink(filepath.Join(cache, "kernels"), filepath.Join(d.dir, "kernels")); err != nil {
		return err
	}
	return d.command("go", "run", "./examples/web/mkimage", "-o", d.archive())
}

func (d *demo) archive() string { return filepath.Join(d.dir, "web.tar") }

func (d *demo) command(program string, args ...string) error {
	cmd := exec.CommandContext(d.ctx, program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, indented{os.Stdout}, indented{os.Stderr}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(program), args[0], err)
	}
	return nil
}

// serve starts the daemon on a free port, and waits for the line that says that it is ready.
func (d *demo) serve() error {
	title("Running it")
	var err error
	if d.log, err = os.Create(filepath.Join(d.dir, "daemon.log")); err != nil {
		return err
	}
	d.daemon = exec.Command(d.binary, "serve", "--data-dir", d.dir, "--listen", "127.0.0.1:0")
	d.daemon.Stderr = d.log
	d.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which then ends it in order
	out, err := d.daemon.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.daemon.Start(); err != nil {
		d.daemon = nil
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("the daemon did not start: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(d.dir, "hale.json"))
	if err != nil {
		return err
	}
	var where struct{ URL string }
	if err := json.Unmarshal(b, &where); err != nil {
		return err
	}
	token, err := exec.CommandContext(d.ctx, d.binary, "token", "--data-dir", d.dir).Output()
	if err != nil {
		return err
	}
	d.token = strings.TrimSpace(string(token))
	d.client, err = hale.New(where.URL, d.token)
	return err
}

func (d *demo) importImage() error {
	f, err := os.Open(d.archive())
	if err != nil {
		return err
	}
	defer f.Close()
	img, err := d.client.ImportImage(d.ctx, f, hale.Import{})
	if err != nil {
		return err
	}
	if img, err = d.client.Image(d.ctx, img.Name, time.Minute); err != nil {
		return err
	}
	d.say("image %s is %s", img.Name, img.Status)
	return nil
}

// live is an instance's life: it comes up, breaks, is mended, and shows its inside.
func (d *demo) live() error {
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	timeline := d.follow(ctx)
	in, err := d.client.CreateInstance(d.ctx, api.CreateInstanceRequest{
		Name: name, Image: image,
		Network:     &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
		HealthCheck: json.RawMessage(`{"http":{"port":80,"path":"/healthz"},"interval":"1s"}`),
	})
	if err != nil {
		return err
	}
	d.say("created %s", in.Name)
	d.say("%s", in.State)
	d.port = in.Network.Ports[0].HostPort
	if err := d.until(timeline, api.HealthStateHealthy); err != nil {
		return err
	}
	if err := d.visit(); err != nil {
		return err
	}
	if err := d.post("break"); err != nil {
		return err
	}
	if err := d.until(timeline, api.HealthStateUnhealthy); err != nil {
		return err
	}
	if err := d.post("mend"); err != nil {
		return err
	}
	if err := d.until(timeline, api.HealthStateHealthy); err != nil {
		return err
	}
	return d.look()
}

// follow shows what happens as it happens, and tells of each change of health.
func (d *demo) follow(ctx context.Context) <-chan api.HealthState {
	timeline := make(chan api.HealthState, 16)
	go func() {
		defer close(timeline)
		state := ""
		for e, err := range d.client.Events(ctx, "") {
			if err != nil {
				return
			}
			switch e.Type {
			case "state":
				var c struct{ To, Reason string }
				json.Unmarshal(e.Data, &c)
				switch state = c.To; state {
				case "Running":
					d.say("%s · starting", state)
				case "Stopped":
					d.say("%s: %s", state, c.Reason)
					return
				}
			case "health":
				var t api.HealthTransition
				json.Unmarshal(e.Data, &t)
				if t.To == api.HealthStateStarting && state != "Running" {
					continue
				}
				reason := ""
				if t.To == api.HealthStateUnhealthy {
					reason = ": " + t.Reason
				}
				d.say("%s · %s%s", state, t.To, reason)
				timeline <- t.To
			}
		}
	}()
	return timeline
}

func (d *demo) until(timeline <-chan api.HealthState, wanted api.HealthState) error {
	timeout := time.After(2 * time.Minute)
	for {
		select {
		case s, ok := <-timeline:
			if !ok {
				return fmt.Errorf("the instance ended before it was %s", wanted)
			}
			if s == wanted {
				return nil
			}
		case <-timeout:
			return fmt.Errorf("the instance is not %s after two minutes", wanted)
		case <-d.ctx.Done():
			return errors.New("interrupted")
		}
	}
}

func (d *demo) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d/%s", d.port, path) }

// visit does what a curl of the published port would.
func (d *demo) visit() error {
	resp, err := http.Get(d.url(""))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	d.say("curl %s: %s", d.url(""), strings.TrimSpace(string(body)))
	return err
}

func (d *demo) post(what string) error {
	resp, err := http.Post(d.url(what), "", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	d.say("curl -X POST %s", d.url(what))
	return nil
}

// look runs a program inside the machine.
func (d *demo) look() error {
	e, err := d.client.Exec(d.ctx, name, api.ExecRequest{Command: []string{"/web", "uname"}})
	if err != nil {
		return err
	}
	defer e.Close()
	var out strings.Builder
	if _, err := e.Copy(&out, &out); err != nil {
		return err
	}
	d.say("hale exec %s -- /web uname: %s", name, strings.TrimSpace(out.String()))
	return nil
}

func (d *demo) farewell() {
	if d.keep {
		title("It is left running. To reach it:")
		fmt.Printf("  export HALE_URL=%s HALE_TOKEN=%s\n  bin/hale ps\n  curl %s\n  bin/hale rm %s; kill %d; rm -r %s   # when you are done\n",
			d.client.URL(), d.token, d.url(""), name, d.daemon.Process.Pid, d.dir)
	}
	title("Try next:")
	fmt.Println("  bin/hale setup && bin/hale serve              # a daemon of your own")
	fmt.Println("  docker save nginx | bin/hale import -         # any image")
	fmt.Println("  bin/hale run -p 8080:80 --health-http :80/ nginx")
}

// cleanUp leaves nothing behind, unless it was asked to.
func (d *demo) cleanUp(err error) {
	if d.keep && err == nil {
		return
	}
	if d.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		d.client.DeleteInstance(ctx, name, false) // it may never have come to be
		cancel()
	}
	if d.daemon != nil {
		d.daemon.Process.Signal(syscall.SIGTERM)
		d.daemon.Wait()
	}
	if err != nil && d.ctx.Err() == nil && d.log != nil {
		if b, err := os.ReadFile(d.log.Name()); err == nil {
			fmt.Fprintf(os.Stderr, "the daemon's log:\n%s", b)
		}
	}
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

// say prints a line of the timeline.
func (d *demo) say(format string, args ...any) {
	line := strings.TrimSpace(fmt.Sprintf(format, args...))
	fmt.Printf("  %5.1fs  %s\n", time.Since(d.start).Seconds(), line)
}

func title(s string) { fmt.Println("\n" + s) }

// indented writes lines a little to the right, so that what others say stands apart.
type indented struct{ w io.Writer }

func (i indented) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if _, err := io.WriteString(i.w, "  "+line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
