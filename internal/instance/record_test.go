package instance_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// maxRecord is what a daemon reads of a record, in bytes.
const maxRecord = 4 << 20

// wordy are images with a long command, which a request may replace.
type wordy struct{ images }

func (w wordy) Image(ctx context.Context, ref string) (instance.Image, error) {
	img, err := w.images.Image(ctx, ref)
	if strings.HasSuffix(img.Ref, "/wordy:latest") {
		img.Cmd = []string{strings.Repeat("a", maxRecord)}
	}
	return img, err
}

// What no daemon would read again is refused when it is asked for, by the field that is the most of it, and nothing is left of it; what
// is taken leaves room for what is to happen, and the next daemon reads it.
func TestARecordIsReadAgain(t *testing.T) {
	h := newHost(t)
	h.survives()
	h.config = func(c *instance.Config) { c.Images = wordy{} }
	s := h.open()
	tags := func(bytes int) map[string]string { return map[string]string{"a": strings.Repeat("<", bytes/6)} } // as JSON has it
	tooMuch := func(name string, err error, field string) {
		t.Helper()
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Kind != api.Invalid || len(e.Details) != 1 || e.Details[0].Field != field || !strings.Contains(e.Message, "at most 4063232") {
			t.Errorf("%s: %.300v", name, err)
		}
	}

	want := spec("web", "sleep")
	want.Tags = tags(maxRecord)
	_, err := s.Create(t.Context(), want)
	tooMuch("create", err, "tags")
	want = spec("web", "wordy")
	want.Cmd = []string{"sleep"}
	_, err = s.Create(t.Context(), want)
	tooMuch("create from an image", err, "image")
	if left := h.left(); len(left) > 0 || h.fake.Running() > 0 {
		t.Errorf("left %v, and %d machines", left, h.fake.Running())
	}

	want = spec("web", "sleep")
	want.Tags = tags(maxRecord - 140<<10)
	i, err := s.Create(t.Context(), want)
	if err != nil {
		t.Fatalf("what fits: %v", err)
	}
	await(t, s, i.ID, instance.Running)
	before := h.events.Last()
	_, err = s.Update(t.Context(), "web", instance.Update{Tags: tags(maxRecord - 120<<10)})
	tooMuch("update", err, "tags")
	if got, err := s.Find("web"); err != nil || len(got.Spec.Tags["a"]) != len(want.Tags["a"]) || h.events.Last() != before {
		t.Errorf("a refused update left %d bytes, and events %v; %v", len(got.Spec.Tags["a"]), h.told(before), err)
	}
	words := strings.Repeat("<", 1<<20)
	h.fake.Crash(i.ID, machine.Exit{Reason: machine.GuestPanic, Message: "first" + words, Console: words + "last"})
	await(t, s, i.ID, instance.Stopped)
	if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil { // after this the record is in place, too
		t.Fatal(err)
	}
	_, err = s.Start(t.Context(), "web", instance.StartOptions{Cmd: []string{"sleep", strings.Repeat("b", 100<<10)}})
	tooMuch("start", err, "tags")
	h.close(s)
	if st, err := os.Stat(filepath.Join(h.dir, i.ID, "instance.json")); err != nil || st.Size() > maxRecord {
		t.Errorf("%v, %v", st.Size(), err)
	}
	s = h.open()
	got, err := s.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	if e := got.Exit; e == nil || !strings.HasPrefix(e.Message, "first") || !strings.HasSuffix(e.Console, "last") {
		t.Errorf("it ended %+v", got.Exit)
	}
	if told := h.told(before); !slices.Equal(told, []string{"state Stopped"}) {
		t.Errorf("told %q", told)
	}
}
