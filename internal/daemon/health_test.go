package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/store"
	hale "github.com/halevm/hale/sdk/go"
)

// oneImage is what every reference names.
type oneImage struct{}

func (oneImage) Image(context.Context, string) (instance.Image, error) {
	return instance.Image{Ref: "docker.io/library/app:latest", Digest: "sha256:app", Disk: "/app.ext4", Cmd: []string{"serve", "80"}}, nil
}

// watched runs the parts of a daemon that health needs, over a journal of its own, or the daemon's, until the end of the test.
func watched(t *testing.T, driver instance.Driver, j health.Journal) *Daemon {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := &Daemon{log: slog.New(slog.DiscardHandler), started: time.Now()}
	d.metrics = newMetrics(d)
	d.loops = newLoops(d.log, d.metrics.panics)
	d.mail = newMailboxes(d.hand, d.handFailed)
	var err error
	d.events, err = event.Open("", event.Options{})
	must(err)
	dir := filepath.Join(t.TempDir(), "instances")
	records, err := store.Open(dir)
	must(err)
	d.journal = &journal{events: d.events, instances: records, name: d.instanceName}
	if j == nil {
		j = d.journal
	}
	d.instances, err = instance.Open(t.Context(), instance.Config{
		Dir: dir, Driver: driver, Images: oneImage{}, Events: d.events, Leaving: d.leaving,
		AgentReady: d.mail.look, NetworkUp: d.mail.look, Unwritten: d.mail.look, Hinted: d.mail.hint, BootRetries: 1,
	})
	must(err)
	d.health = health.NewSet(health.Config{Probe: d.probe, Journal: j})
	d.loops.start(healthConsumer, d.followHealth)
	d.loops.start(hintConsumer, d.keepWatching)
	d.mail.start()
	t.Cleanup(func() {
		d.loops.stop()
		d.mail.stop()
		ctx := context.WithoutCancel(t.Context())
		must(errors.Join(d.health.Close(ctx), d.mail.wait(ctx), d.instances.Close(ctx), d.events.Close(), records.Close()))
	})
	return d
}

func (d *Daemon) make(t *testing.T, name string) instance.Instance {
	t.Helper()
	p, err := health.Parse(json.RawMessage(`{"tcp":{"port":80},"interval":"1s"}`))
	if err != nil {
		t.Fatal(err)
	}
	in, err := d.instances.Create(t.Context(), instance.Spec{
		Name: name, Image: "app", VCPUs: 1, Memory: instance.Size{Bytes: 1 << 30}, Overlay: instance.Size{Bytes: 1 << 30}, HealthCheck: &p,
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// until waits for a status, and returns how long that took.
func (d *Daemon) until(t *testing.T, id string, want health.Status) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		changed := d.health.Changed(id)
		s, ok := d.health.Snapshot(id)
		if s.Status == want {
			return time.Since(begun)
		}
		if time.Since(begun) > 10*time.Minute {
			t.Fatalf("it is %s, not %s", s.Status, want)
		}
		if !ok {
			changed = nil
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A slowDisk takes its time for every transition, and for the record of one instance until it is told to go on.
type slowDisk struct {
	mu    sync.Mutex
	takes time.Duration
	stuck string
	free  chan struct{}
}

func (j *slowDisk) Commit(ctx context.Context, _ string, _ health.Transition) error {
	j.mu.Lock()
	takes := j.takes
	j.mu.Unlock()
	if takes == 0 { // two timers at once that are over as they are made crash Go 1.26's race detector in a bubble
		return nil
	}
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (j *slowDisk) Save(id string, _ []byte) error {
	j.mu.Lock()
	stuck := j.stuck == id
	j.mu.Unlock()
	if stuck {
		<-j.free
	}
	return nil
}

func (*slowDisk) Load(string) ([]byte, error) { return nil, nil }

func (j *slowDisk) set(takes time.Duration, stuck string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.takes, j.stuck = takes, stuck
}

// Where each transition takes a second to be written, many that stop at once are known to have stopped after that second; and one whose
// record is stuck, deleted or not, holds up nobody.
func TestASlowDiskHoldsUpNoOtherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		disk := &slowDisk{free: make(chan struct{})}
		d := watched(t, fake.New(fake.Config{}), disk)
		var all []instance.Instance
		for i := range n {
			all = append(all, d.make(t, fmt.Sprint("web", i)))
		}
		for _, in := range all {
			d.until(t, in.ID, health.StatusHealthy)
		}
		disk.set(900*time.Millisecond, "")
		for _, in := range all[1:] {
			if _, err := d.instances.Stop(t.Context(), in.ID); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		for _, in := range all[1:] {
			d.until(t, in.ID, health.StatusUnknown)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%d are known to have stopped after %v", n-1, took)
		}

		stuck := all[0]
		disk.set(0, stuck.ID)
		time.Sleep(20 * time.Second) // its next record is being written
		if err := d.instances.Delete(t.Context(), stuck.ID, false); err != nil {
			t.Fatal(err)
		}
		if _, err := d.instances.Start(t.Context(), all[1].ID, instance.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		if took := d.until(t, all[1].ID, health.StatusHealthy); took > 5*time.Second {
			t.Errorf("the next is healthy after %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if d.settled(ctx, all[1].ID); ctx.Err() != nil {
			t.Error("who asks for the one waits for the other")
		}
		close(disk.free)
		d.mail.heard(t.Context(), stuck.ID)
		if _, known := d.health.Snapshot(stuck.ID); known {
			t.Error("a deleted one is known")
		}
	})
}

// A guest that could not be told which port to tell of is told before long, without anything happening to its instance.
func TestAGuestIsToldOfItsPortAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := &deafDriver{Driver: fake.New(fake.Config{}), until: time.Now().Add(time.Minute)}
		d := watched(t, deaf, &slowDisk{})
		in := d.make(t, "web")
		d.until(t, in.ID, health.StatusHealthy)
		time.Sleep(50 * time.Second)
		if ports := deaf.Watched(in.ID); len(ports) != 0 {
			t.Fatalf("it heard of %v", ports)
		}
		time.Sleep(10*time.Second + watchEvery)
		if ports := deaf.Watched(in.ID); len(ports) == 0 || ports[0] != 80 {
			t.Errorf("it heard of %v", ports)
		}
	})
}

// A deafDriver's machines do not hear which port is watched until some time.
type deafDriver struct {
	*fake.Driver
	until time.Time
}

func (d *deafDriver) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := d.Driver.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	return deafMachine{m.(*fake.Machine), d.until}, nil
}

type deafMachine struct {
	*fake.Machine
	until time.Time
}

func (m deafMachine) Watch(port uint16) {
	if !time.Now().Before(m.until) {
		m.Machine.Watch(port)
	}
}

// One that stopped is not healthy, and who waits for that is not told so, also while the disk takes no word of its end.
func TestStoppedIsNotHealthyWhereTheDiskRefuses(t *testing.T) {
	dir := t.TempDir()
	driver := fake.New(fake.Config{})
	c, stop := run(t, dir, driver)
	defer stop()
	load(t, c)
	in, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "web", Image: "app", HealthCheck: json.RawMessage(`{"tcp":{"port":80},"interval":"200ms"}`)})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, c, hale.Wait{Health: api.HealthStateHealthy})
	wait(t, c, hale.Wait{State: api.InstanceStateRunning})
	tag := map[string]string{"a": "b"} // after this the record is in place, too
	if _, err := c.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{Tags: tag}); err != nil {
		t.Fatal(err)
	}
	obstacle := filepath.Join(dir, "instances", in.ID, "instance.json.next")
	if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	driver.Crash(in.ID, machine.Exit{Reason: machine.VMMKilled})
	if a, err := c.WaitInstance(t.Context(), "web", hale.Wait{State: api.InstanceStateStopped, Timeout: time.Minute}); err != nil || a.TimedOut {
		t.Fatalf("%+v, %v", a, err)
	}
	a, err := c.WaitInstance(t.Context(), "web", hale.Wait{Health: api.HealthStateHealthy, Timeout: time.Minute})
	if err != nil || a.TimedOut || a.StateError == nil || a.HealthStatus.Status != api.HealthStateUnknown {
		t.Errorf("who waits for healthy is told %+v, %v", a, err)
	}
	a, err = c.WaitInstance(t.Context(), "web", hale.Wait{Health: api.HealthStateUnknown, Timeout: time.Minute})
	if err != nil || a.TimedOut || a.State != api.InstanceStateStopped || a.HealthStatus.LastStatus != api.HealthStateHealthy {
		t.Errorf("who waits for unknown is told %+v, %v", a, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // health itself hears of it
		h, err := c.InstanceHealth(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		if last := h.Transitions[len(h.Transitions)-1]; last.To == api.HealthStateUnknown {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("health has not heard of it: %+v", h.Transitions)
		}
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
}

// What the log says of health and cannot be read is passed over, with a word in the daemon's log; what it says of an instance is given
// once, and nothing is kept of those that are gone.
func TestTransitionsOfTheLog(t *testing.T) {
	events, err := event.Open("", event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	for _, e := range []struct {
		typ  event.Type
		id   string
		data any
	}{
		{event.TypeHealth, "a", health.Transition{N: 1, To: health.StatusStarting}},
		{event.TypeHealth, "a", "no transition"},
		{event.TypeState, "a", nil},
		{event.TypeHealth, "gone", health.Transition{N: 1, To: health.StatusStarting}},
		{event.TypeHealth, "a", health.Transition{N: 2, From: health.StatusStarting, To: health.StatusHealthy}},
	} {
		if _, err := events.Append(t.Context(), e.typ, e.id, "", e.data); err != nil {
			t.Fatal(err)
		}
	}
	var logged recorder
	replay, _, err := readTransitions(t.Context(), events, []instance.Instance{{ID: "a"}, {ID: "b"}}, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if logged.lines != 1 {
		t.Errorf("%d lines in the log", logged.lines)
	}
	j := &journal{replay: replay}
	if len(j.replay) != 1 {
		t.Errorf("kept of %d instances", len(j.replay))
	}
	if got, err := j.Replay("a"); err != nil || len(got) != 2 || got[0].N != 1 || got[1].To != health.StatusHealthy {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := j.Replay("a"); err != nil || len(got) != 0 || len(j.replay) != 0 {
		t.Errorf("the second time %+v, %v, and %d are kept", got, err, len(j.replay))
	}
}

type recorder struct{ lines int }

func (r *recorder) Write(b []byte) (int, error) { r.lines++; return len(b), nil }

// A health record that would not be read again does not take the place of one that is.
func TestAHealthRecordIsReadAgain(t *testing.T) {
	root, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Mkdir("a"); err != nil {
		t.Fatal(err)
	}
	j := &journal{instances: root}
	for _, size := range []int{10, health.MaxRecord, health.MaxRecord + 1} {
		err := j.Save("a", bytes.Repeat([]byte{'x'}, size))
		if (err != nil) != (size > health.MaxRecord) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if got, err := j.Load("a"); err != nil || len(got) != min(size, health.MaxRecord) {
			t.Errorf("after %d bytes, %d are read: %v", size, len(got), err)
		}
	}
}

// What is written every few seconds does not wait for the disk; what follows a transition does, also if a write was under way meanwhile.
func TestATransitionIsWrittenWhole(t *testing.T) {
	root, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Mkdir("a"); err != nil {
		t.Fatal(err)
	}
	log, err := event.Open(filepath.Join(t.TempDir(), "events"), event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	j := &journal{instances: root, events: log, name: func(id string) string { return id }}
	save := func(blob, file string) {
		t.Helper()
		if err := j.Save("a", []byte(blob)); err != nil {
			t.Fatal(err)
		}
		whole, err := root.ReadFile("a/health.json", 100)
		if err != nil || string(whole) != file {
			t.Errorf("after %q the file holds %q, %v, not %q", blob, whole, err, file)
		}
		if got, err := j.Load("a"); err != nil || string(got) != blob {
			t.Errorf("%q is read after %q, %v", got, blob, err)
		}
	}
	save("first", "first")
	save("counters", "first")
	if err := j.Commit(t.Context(), "a", health.Transition{From: health.StatusStarting, To: health.StatusHealthy, N: 1}); err != nil {
		t.Fatal(err)
	}
	save("under way meanwhile", "under way meanwhile")
	save("healthy", "healthy")
	save("more counters", "healthy")
	if err := root.RemoveDir("a"); err != nil {
		t.Fatal(err)
	}
	if err := j.Save("a", []byte("late")); err != nil || len(j.records) != 0 {
		t.Errorf("of an instance that was deleted: %v, %d records", err, len(j.records))
	}
}
