package agent

import (
	"testing"

	"github.com/halevm/hale/internal/machine"
)

func TestExiting(t *testing.T) {
	for stat, want := range map[string]bool{
		"77 (a b) c) S 1 77 77 0 -1 4194560 1 2 3": false,
		"77 (a b) c) R 1 77 77 0 -1 4194564 1 2 3": true, // 0x400104
		"77 (x) Z 1 77 77 0 -1 4228100 1 2 3":      true,
		"77 (x) S 1":                               false,
		"77 (x) S 1 77 77 0 -1 x 1":                false,
		"":                                         false,
	} {
		if got := exiting([]byte(stat)); got != want {
			t.Errorf("%q: %v", stat, got)
		}
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
