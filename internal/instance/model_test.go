package instance_test

import (
	"encoding/json"
	"errors"
	"flag"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// A model is what an instance should be, by name.
type model struct {
	id      string
	program string
	state   instance.State
	run     uint64
	tag     string
	ip      string
}

// Whatever is done in whatever order, with machines that crash and daemons that come and go: the Set, the log's readers,
// the directories and the driver agree with the model.
func TestModel(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("40"); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		// Without a Deadline, which a bubble's clock does not know.
		rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) {
			w := &world{t: t, host: newHost(t), models: map[string]*model{}, followed: map[string]instance.State{}}
			if rapid.Bool().Draw(rt, "survives") {
				w.survives()
			}
			w.config = func(c *instance.Config) { c.Memory = 4 << 30 }
			w.place = w.events.Last()
			w.set = w.open()
			defer w.end()
			rt.Repeat(map[string]func(*rapid.T){
				"create": w.create, "start": w.start, "stop": w.stop, "delete": w.delete,
				"update": w.update, "crash": w.crash, "restart": w.restart, "": w.check,
			})
		})
	})
}

type world struct {
	*host
	t        *testing.T
	set      *instance.Set
	models   map[string]*model
	place    event.ID
	followed map[string]instance.State // what a reader of the log knows, by id
}

// No id begins like one of these.
var names = []string{"n-a", "n-b", "n-c", "n-d", "n-e", "n-f"}

// end leaves no machine to nobody.
func (w *world) end() {
	for _, i := range w.set.List() {
		if err := w.set.Delete(w.t.Context(), i.ID, false); err != nil {
			w.t.Error(err)
		}
	}
	w.close(w.set)
}

func (w *world) pick(t *rapid.T) (string, *model) {
	name := rapid.SampledFrom(names).Draw(t, "name")
	return name, w.models[name]
}

func (w *world) active() (n int) {
	for _, m := range w.models {
		if m.state.Active() {
			n++
		}
	}
	return n
}

// settle waits until the program has come to what it does.
func (w *world) settle(m *model) {
	m.state = instance.Running
	if m.program == "exit" || m.program == "panic" {
		m.state = instance.Stopped
	}
	await(w.t, w.set, m.id, m.state)
	synctest.Wait()
}

func (w *world) create(t *rapid.T) {
	name, m := w.pick(t)
	full := w.active() == 4
	program := rapid.SampledFrom([]string{"sleep", "exit", "hang", "stuck", "panic"}).Draw(t, "program")
	i, err := w.set.Create(w.t.Context(), spec(name, program))
	switch {
	case m != nil:
		if !errors.Is(err, api.Conflict) {
			t.Fatalf("create %s twice: %v", name, err)
		}
	case full:
		if !errors.Is(err, api.Exhausted) {
			t.Fatalf("create %s without room: %v", name, err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		w.models[name] = &model{id: i.ID, program: program, run: 1, ip: i.IP}
		w.settle(w.models[name])
	}
}

func (w *world) start(t *rapid.T) {
	name, m := w.pick(t)
	full := w.active() == 4
	_, err := w.set.Start(w.t.Context(), name, instance.StartOptions{})
	switch {
	case m == nil:
		if !errors.Is(err, api.NotFound) {
			t.Fatalf("start nobody: %v", err)
		}
	case m.state != instance.Stopped:
		if !errors.Is(err, api.InvalidState) {
			t.Fatalf("start %s: %v", m.state, err)
		}
	case full:
		if !errors.Is(err, api.Exhausted) {
			t.Fatalf("start without room: %v", err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		m.run++
		w.settle(m)
	}
}

func (w *world) stop(t *rapid.T) {
	name, m := w.pick(t)
	i, err := w.set.Stop(w.t.Context(), name)
	if m == nil {
		if !errors.Is(err, api.NotFound) {
			t.Fatalf("stop nobody: %v", err)
		}
		return
	}
	if err != nil || i.State != instance.Stopped {
		t.Fatalf("stop: %s, %v", i.State, err)
	}
	m.state = instance.Stopped
}

func (w *world) delete(t *rapid.T) {
	name, m := w.pick(t)
	err := w.set.Delete(w.t.Context(), name, rapid.Bool().Draw(t, "graceful"))
	if m == nil {
		if !errors.Is(err, api.NotFound) {
			t.Fatalf("delete nobody: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(w.models, name)
}

func (w *world) update(t *rapid.T) {
	name, m := w.pick(t)
	tag := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "tag")
	_, err := w.set.Update(w.t.Context(), name, instance.Update{Tags: map[string]string{"tag": tag}})
	if m == nil {
		if !errors.Is(err, api.NotFound) {
			t.Fatalf("update nobody: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.tag = tag
}

func (w *world) crash(t *rapid.T) {
	_, m := w.pick(t)
	if m == nil || m.state != instance.Running {
		t.Skip("nothing to crash")
	}
	if !w.fake.Crash(m.id, machine.Exit{Reason: machine.ShimDied}) {
		t.Fatal("it does not run")
	}
	m.state = instance.Stopped
	await(w.t, w.set, m.id, instance.Stopped)
	synctest.Wait()
}

func (w *world) restart(t *rapid.T) {
	w.close(w.set)
	if _, survives := w.driver.(instance.Recoverer); !survives {
		for _, m := range w.models {
			m.state = instance.Stopped
		}
	}
	w.set = w.open()
	synctest.Wait()
}

func (w *world) check(t *rapid.T) {
	w.follow(t)
	list := w.set.List()
	if len(list) != len(w.models) || len(w.followed) != len(list) || len(w.left()) != len(list) {
		t.Fatalf("%d listed, %d followed, %d on disk, want %d", len(list), len(w.followed), len(w.left()), len(w.models))
	}
	addresses := map[string]bool{}
	for _, i := range list {
		m := w.models[i.Spec.Name]
		if m == nil || i.ID != m.id || i.State != m.state || i.Run != m.run || i.Spec.Tags["tag"] != m.tag || i.IP != m.ip {
			t.Fatalf("found %+v, want %+v", i, m)
		}
		if w.followed[i.ID] != i.State {
			t.Fatalf("%s is %s, and a reader of the log thinks %s", i.Spec.Name, i.State, w.followed[i.ID])
		}
		if (i.Exit != nil) != (i.State == instance.Stopped) || addresses[i.IP] {
			t.Fatalf("%+v", i)
		}
		addresses[i.IP] = true
	}
	if n := w.fake.Running(); n != w.active() {
		t.Fatalf("%d machines run, want %d", n, w.active())
	}
	if a := w.set.Allocated(); a.Active != w.active() || a.Memory != int64(w.active())<<30 {
		t.Fatalf("allocated %+v, want %d active", a, w.active())
	}
}

// follow reads on in the log, and checks that each change begins where the last one ended.
func (w *world) follow(t *rapid.T) {
	r := w.events.Follow(w.place, "model")
	defer r.Close()
	for w.place != w.events.Last() {
		e, err := r.Next(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.place = e.ID
		switch e.Type {
		case event.TypeCreated:
			w.followed[e.Instance] = instance.Created
		case event.TypeDeleted:
			delete(w.followed, e.Instance)
		case event.TypeState:
			var c event.StateChange
			if err := json.Unmarshal(e.Data, &c); err != nil {
				t.Fatal(err)
			}
			if string(w.followed[e.Instance]) != c.From || c.From == c.To {
				t.Fatalf("%s goes from %s to %s, and was %s", e.Instance, c.From, c.To, w.followed[e.Instance])
			}
			w.followed[e.Instance] = instance.State(c.To)
		case event.TypeResync:
			t.Fatal("told to list again")
		}
	}
}
