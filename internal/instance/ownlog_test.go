package instance_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/halevm/hale/internal/instance"
)

// The daemon's log of an instance tells its life to a person.
func TestOwnLog(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := create(t, s, "web", "exit")
	await(t, s, i.ID, instance.Stopped)
	h.close(s)
	s.Logger(i.ID).Info("a word from elsewhere")
	s.Logger(i.ID).Debug("not for people")
	b, err := os.ReadFile(filepath.Join(s.Dir(i.ID), instance.LogName))
	if err != nil {
		t.Fatal(err)
	}
	text, at := string(b), 0
	for _, want := range []string{"starting", "guest agent ready", "running", "stopped", "exit_code=0", "a word from elsewhere"} {
		n := strings.Index(text[at:], want)
		if n < 0 {
			t.Errorf("%q is missing in\n%s", want, text)
			continue
		}
		at += n
	}
	if strings.Contains(text, "not for people") {
		t.Errorf("debug lines in\n%s", text)
	}
}

// What a machine says of itself is in the instance's own log, and changes nothing.
func TestLinesOfAMachine(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := create(t, s, "web", "sleep")
	running := await(t, s, i.ID, instance.Running)
	if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil { // after this its event is in the log, too
		t.Fatal(err)
	}
	before := h.events.Last()
	if !h.fake.Tell(i.ID, slog.LevelWarn, "the host's disk is full") || !h.fake.Tell(i.ID, slog.LevelInfo, "it goes on") {
		t.Fatal("it cannot speak")
	}
	if _, err := s.Update(t.Context(), "web", instance.Update{Env: map[string]*string{"NONE": nil}}); err != nil { // a notice may come after this
		t.Fatal(err)
	}
	if now, err := s.Find("web"); err != nil || fmt.Sprint(now) != fmt.Sprint(running) || h.events.Last() != before {
		t.Errorf("now it is %+v, %v", now, err)
	}
	if _, err := s.Stop(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(h.dir, i.ID, instance.LogName))
	if err != nil || !strings.Contains(string(log), `level=WARN msg="the host's disk is full"`) || !strings.Contains(string(log), `level=INFO msg="it goes on"`) {
		t.Errorf("%v\n%s", err, log)
	}
}
