package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// A daemon is one `hale serve` with a data directory of its own.
type daemon struct {
	*hale.Client
	binary string
	flags  []string
	dir    string
	cmd    *exec.Cmd
	log    bytes.Buffer
	url    string
	token  string
}

func startDaemon(binary, kernels, dir string, flags ...string) (*daemon, error) {
	d := &daemon{binary: binary, dir: dir, flags: flags}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Symlink(kernels, filepath.Join(dir, "kernels")); err != nil {
		return nil, err
	}
	if err := d.start(); err != nil {
		return nil, err
	}
	return d, nil
}

// restart ends the daemon, and not its machines, and starts another one in its place. It returns when that one is ready.
func (d *daemon) restart() error {
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("end the daemon: %w\n%s", err, d.log.String())
	}
	return d.start()
}

func (d *daemon) start() error {
	dir, binary := d.dir, d.binary
	d.cmd = exec.Command(binary, append([]string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0"}, d.flags...)...)
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, who then end it in order
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		d.cmd.Wait()
		return fmt.Errorf("the daemon did not start: %w\n%s", err, d.log.String())
	}
	var where struct{ URL string }
	b, err := os.ReadFile(filepath.Join(dir, "hale.json"))
	if err == nil {
		err = json.Unmarshal(b, &where)
	}
	var token []byte
	if err == nil {
		token, err = exec.Command(binary, "token", "--data-dir", dir).Output()
	}
	if err == nil {
		d.url, d.token = where.URL, strings.TrimSpace(string(token))
		d.Client, err = hale.New(d.url, d.token)
	}
	if err != nil {
		d.stop()
		return err
	}
	return nil
}

// stop deletes every instance and ends the daemon.
func (d *daemon) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if d.Client != nil {
		list, err := d.Instances(ctx, hale.InstanceFilter{})
		errs = append(errs, err)
		for _, in := range list {
			errs = append(errs, d.DeleteInstance(ctx, in.ID, false))
		}
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	errs = append(errs, d.cmd.Wait())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the daemon: %w\n%s", err, d.log.String())
	}
	return nil
}

// run runs the command line as a person would, and returns what it printed.
func (d *daemon) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.binary, args...)
	cmd.Env = append(os.Environ(), "HALE_URL="+d.url, "HALE_TOKEN="+d.token)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("hale %s: %w: %s", strings.Join(args, " "), err, words.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// load imports an image from a file, and returns when it is ready.
func (d *daemon) load(ctx context.Context, path string) (api.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return api.Image{}, err
	}
	defer f.Close()
	img, err := d.ImportImage(ctx, f, hale.Import{})
	if err == nil {
		img, err = d.Image(ctx, img.Name, time.Minute)
	}
	if err == nil && img.Status != api.ImageStatusReady {
		err = fmt.Errorf("the image is %s", img.Status)
	}
	return img, err
}

// create makes an instance that is checked over http.
func (d *daemon) create(ctx context.Context, r api.CreateInstanceRequest) (api.Instance, error) {
	r.Size, r.HealthCheck = fmt.Sprintf("%dMB", machineMemory>>20), json.RawMessage(`{"http":{"port":80}}`)
	return d.CreateInstance(ctx, r)
}

// healthy makes one and waits until it is healthy.
func (d *daemon) healthy(ctx context.Context, r api.CreateInstanceRequest) (api.Instance, error) {
	in, err := d.create(ctx, r)
	if err != nil {
		return in, err
	}
	w, err := d.WaitInstance(ctx, in.ID, hale.Wait{Health: api.HealthStateHealthy, Timeout: bootPatience})
	if err == nil && (w.HealthStatus == nil || w.HealthStatus.Status != api.HealthStateHealthy) {
		err = fmt.Errorf("%s is %s, and not healthy within %v", in.Name, w.State, bootPatience)
	}
	if err != nil {
		return in, err
	}
	return d.Instance(ctx, in.ID)
}

// qemuOf is an instance's hypervisor: its shim's child.
func (d *daemon) qemuOf(id string) (int, error) {
	shim, err := d.shimOf(id)
	if err != nil {
		return 0, err
	}
	return childOf(shim)
}

// shimOf is the process beside an instance's machine, by its record.
func (d *daemon) shimOf(id string) (int, error) {
	b, err := os.ReadFile(filepath.Join(d.dir, "instances", id, "shim.json"))
	if err != nil {
		return 0, err
	}
	var r struct{ PID int }
	if err := json.Unmarshal(b, &r); err != nil || r.PID == 0 {
		return 0, fmt.Errorf("the shim's record %q: %w", b, err)
	}
	return r.PID, nil
}

// console is what an instance's machine said on its console.
func (d *daemon) console(id string) (string, error) {
	b, err := os.ReadFile(filepath.Join(d.dir, "instances", id, "vm/log/vmm.log"))
	return string(b), err
}
