// Compat runs a command against a daemon in this process whose machines are fakes: HALE_URL, HALE_TOKEN, HALE_IMAGE (an image
// that serves HTTP on port 80) and HALE_REGISTRY (where that can be pulled) tell it where. It ends with the command's exit code.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/internal/daemon"
	"github.com/halevm/hale/internal/token"
)

const image = "docker.io/library/compat:latest"

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	code, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		code = 1
	}
	os.Exit(code)
}

// run runs the command while the daemon runs.
func run(args []string) (code int, err error) {
	if len(args) == 0 {
		return 0, errors.New("name a command to run")
	}
	dir, err := os.MkdirTemp("", "hale-compat-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- daemon.Run(ctx, daemon.Config{
			DataDir: dir, Listen: "127.0.0.1:0", Driver: daemon.DriverFake, Ready: func(url string) { ready <- url },
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
	}()
	select {
	case err := <-done:
		cancel()
		return 0, err
	case url := <-ready:
		code, err = against(url, dir, args)
	}
	cancel()
	return code, errors.Join(err, <-done)
}

// against imports the image and runs the command.
func against(url, dir string, args []string) (int, error) {
	secret, err := token.Load(dir)
	if err != nil {
		return 0, err
	}
	bearer, err := secret.Mint(time.Now(), time.Hour)
	if err != nil {
		return 0, err
	}
	if err := importImage(url, bearer); err != nil {
		return 0, fmt.Errorf("import an image: %w", err)
	}
	registry, stop, err := startRegistry()
	if err != nil {
		return 0, fmt.Errorf("start a registry: %w", err)
	}
	defer stop()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "HALE_URL="+url, "HALE_TOKEN="+bearer, "HALE_IMAGE="+image, "HALE_REGISTRY="+registry)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); failed {
		return cmd.ProcessState.ExitCode(), nil
	}
	return 0, err
}

// startRegistry starts a registry that has app:v1, and private/app:v1 for those who have the password or the token; in
// limited it was asked too often.
func startRegistry() (addr string, stop func(), err error) {
	reg := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/v2/limited/"):
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
		case strings.HasPrefix(r.URL.Path, "/v2/private/") && r.Method == http.MethodGet && password != "secret" && r.Header.Get("Authorization") != "Bearer token":
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			reg.ServeHTTP(w, r)
		}
	}))
	addr = strings.TrimPrefix(srv.URL, "http://")
	for _, repo := range []string{"app", "private/app"} {
		var img v1.Image
		if img, err = serving(); err == nil {
			var ref name.Reference
			if ref, err = name.ParseReference(addr + "/" + repo + ":v1"); err == nil {
				err = remote.Write(ref, img)
			}
		}
		if err != nil {
			srv.Close()
			return "", nil, err
		}
	}
	return addr, srv.Close, nil
}

// serving is an image whose program the fake driver knows.
func serving() (v1.Image, error) {
	img, err := random.Image(1<<10, 1)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Entrypoint = []string{"serve", "80"}
	return mutate.ConfigFile(img, config)
}

// importImage gives the daemon an image, as `docker save` would write it.
func importImage(url, bearer string) error {
	img, err := serving()
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(image)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := tarball.Write(ref, img, &archive); err != nil {
		return err
	}
	if _, err := call("POST", url+"/images/import", bearer, &archive); err != nil {
		return err
	}
	body, err := call("GET", url+"/images/docker.io%2Flibrary%2Fcompat:latest?wait=3m", bearer, nil)
	if err == nil && !bytes.Contains(body, []byte(`"ready"`)) {
		err = fmt.Errorf("the image is not ready: %s", body)
	}
	return err
}

func call(method, url, bearer string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, answer)
	}
	return answer, err
}
