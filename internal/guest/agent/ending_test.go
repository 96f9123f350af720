package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/internal/machine"
)

func TestExiting(t *testing.T) {
	for stat, want := range map[string]bool{
		"77 (a b) c) S 1 77 77 0 -1 4194560 1 2 3": false,
		"77 (a b) c) R 1 77 77 0 -1 4194564 1 2 3": true, // 0x400104
		"77 (x) Z 1 77 77 0 -1 4228100 1 2 3":      true,
		"77 (x) X -1 0 0 0 -1 0 0":                 true,
		"77 (x) S 1":                               false,
		"77 (x) S 1 77 77 0 -1 x 1":                false,
		"":                                         false,
	} {
		if got := exiting([]byte(stat)); got != want {
			t.Errorf("%q: %v", stat, got)
		}
	}
}

// The threads of a program, by their stat; "": it has gone since it was listed.
func TestAllThreadsAreExiting(t *testing.T) {
	const lives, marked, zombie, strange = "7 (x) S 1 7 7 0 -1 64 0", "7 (x) R 1 7 7 0 -1 68 0", "7 (x) Z 1 7 7 0 -1 64 0", "?"
	many := slices.Repeat([]string{marked}, 3*threadPiece)
	for name, c := range map[string]struct {
		threads []string
		want    bool
	}{
		"one that lives":             {[]string{lives}, false},
		"one that ends":              {[]string{marked}, true},
		"only the first has ended":   {[]string{zombie, lives}, false},
		"only the last goes on":      {append(many, lives), false},
		"all of many":                {many, true},
		"gone, and marked":           {[]string{"", marked}, true},
		"gone, and one that lives":   {[]string{"", lives}, false},
		"none":                       {nil, true},
		"one that cannot be told of": {[]string{marked, strange}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for i, stat := range c.threads {
				d := filepath.Join(dir, strconv.Itoa(i))
				err := os.Mkdir(d, 0o700)
				if stat != "" {
					err = errors.Join(err, os.WriteFile(filepath.Join(d, "stat"), []byte(stat), 0o600))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := allExiting(dir); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	if !allExiting(filepath.Join(t.TempDir(), "gone")) {
		t.Error("what is gone goes on")
	}
}

// headless has this test's own program lose its first thread, and go on.
const headless = "HALE_TEST_HEADLESS"

func init() {
	if os.Getenv(headless) == "" {
		return
	}
	runtime.LockOSThread() // init is run by the first thread
	go func() {
		time.Sleep(limit)
		os.Exit(1)
	}()
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
}

// A program whose first thread has ended, as by pthread_exit in main, serves on with its others, and is judged as it was.
func TestOnlyTheFirstThreadEnds(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, machine.Process{Argv: []string{self}, Env: []string{headless + "=1"}})
	l.running()
	l.agent.mu.Lock()
	p := l.agent.program
	l.agent.mu.Unlock()
	for until := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
		if err != nil || time.Now().After(until) {
			t.Fatalf("its first thread does not end: %q, %v", stat, err)
		}
		if exiting(stat) {
			break
		}
	}
	if ending, err := l.conn.Ending(t.Context()); err != nil || ending {
		t.Errorf("while its other threads run: %v, %v", ending, err)
	}
	if err := p.signal(9, false); err != nil {
		t.Fatal(err)
	}
	<-p.done
	// The machine ends with it: the agent may have gone by now.
	if ending, err := l.conn.Ending(t.Context()); err == nil && !ending {
		t.Error("after the end of all it is not ending")
	}
}

// What the host is told of the program's end, before and after it.
func TestEnding(t *testing.T) {
	l := newLab(t, machine.Process{Argv: []string{"sleep", "1000"}})
	l.running()
	if ending, err := l.conn.Ending(t.Context()); err != nil || ending {
		t.Errorf("while it runs: %v, %v", ending, err)
	}
	l.agent.mu.Lock()
	p := l.agent.program
	l.agent.mu.Unlock()
	if err := p.signal(9, false); err != nil {
		t.Fatal(err)
	}
	<-p.done
	if ending, err := l.conn.Ending(t.Context()); err != nil || !ending {
		t.Errorf("after its end: %v, %v", ending, err)
	}
}
