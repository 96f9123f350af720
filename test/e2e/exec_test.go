//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// TestInputThatNobodyReads sends more input than everything on the way holds to a program that reads none of it. A signal comes
// past it, and a client that goes away in the middle takes its program along and leaves nothing in the daemon.
func TestInputThatNobodyReads(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{Name: "deaf"})
	h.await(in.ID, api.InstanceStateRunning)
	h.run("deaf", "/workload", "count", "deaf") // what a first exec makes and keeps is there
	files, goroutines := h.descriptors(), h.goroutines()

	e, err := h.Exec(t.Context(), "deaf", api.ExecRequest{Command: []string{"/workload", "deaf"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write(make([]byte, 900_000)); err != nil {
		t.Fatal(err)
	}
	if err := e.Signal("SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if exit, err := e.Copy(io.Discard, io.Discard); err != nil || exit.Signal != "SIGKILL" {
		t.Errorf("signalled behind 900,000 bytes it ended with %+v, %v", exit, err)
	}
	e.Close()

	token, err := exec.Command(binary, "token", "--data-dir", h.dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	input := &counted{r: bytes.NewReader(make([]byte, 20<<20))}
	cli := exec.Command(binary, "exec", "-i", "deaf", "/workload", "deaf")
	cli.Env = append(os.Environ(), "HALE_URL="+h.URL(), "HALE_TOKEN="+strings.TrimSpace(string(token)))
	cli.Stdin = input
	out, err := cli.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cli.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "deaf\n" {
		t.Errorf("it says %q, %v", line, err)
	}
	eventually(t, "a megabyte is on its way", func() bool { return input.n.Load() >= 1<<20 })
	cli.Process.Signal(syscall.SIGINT)
	if err := cli.Wait(); cli.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("hale exec ended with %v", err)
	}
	start := time.Now()
	eventually(t, "the program is gone", func() bool { return h.run("deaf", "/workload", "count", "deaf") == "0" })
	if took := time.Since(start); took > 30*time.Second { // an exec within; nothing but its client's end would end it for ten minutes
		t.Errorf("the program went %v after its client", took)
	}
	eventually(t, "the daemon holds what it held before", func() bool { return len(h.descriptors()) <= len(files) && h.goroutines() <= goroutines })
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
