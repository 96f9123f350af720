package shim

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"
)

// A wait that was given up says nothing about the next one.
func TestProcessIsWaitedForAgain(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	p, err := openProcess(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for range 2 { // the second with a context that is over before it begins
		if err := p.wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while it runs: %v", err)
		}
	}
	ended := make(chan error)
	go func() { ended <- p.wait(t.Context()) }()
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it was killed, but the wait says: %v", err)
	}
}
