package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/store"
)

// journal is where health keeps what must outlive the daemon: transitions in the event log, the rest in the record,
// instances/ID/health.json with its drafts.
type journal struct {
	events    *event.Log
	instances *store.Root // of DIR/instances
	name      func(id string) string

	mu      sync.Mutex
	replay  map[string][]health.Transition // by instance, as the log held them at the start, until each was asked for
	records map[string]*record             // by instance; nil: of none yet
	barred  map[string]bool                // instances that are about to be deleted: nothing is told of them any more
}

// A record is the file of an instance's health record. The instance's loop reads and writes it, and nobody else.
type record struct {
	*store.Drafted
	whole int // how many of the next writes are to be; under journal.mu
}

const healthFile = "/health.json"

// recordWhole is how often the record of an instance that is probed all the time is written as files are. A status does not wait for it, nor
// for anything but the event log; the drafts between are for the counters, which after a crash of the host are another boot's.
const recordWhole = time.Minute

// errBarred is what a transition comes to that is told after an instance has begun to leave.
var errBarred = errors.New("the instance is about to be deleted")

// Commit appends the transition to the event log. The record is written whole after it: a person may look there, and it has the status
// alone where the log refuses.
func (j *journal) Commit(ctx context.Context, id string, t health.Transition) error {
	if j.bars(id) {
		return errBarred
	}
	j.record(id, func(r *record) { r.whole = 2 }) // one that is under way may not hold it yet
	_, err := j.events.Append(ctx, event.TypeHealth, id, j.name(id), t)
	return err
}

// Save writes the record, unless it could not be read again: the last one that can is better then. Deleting an instance's directory deletes
// its health with it.
func (j *journal) Save(id string, blob []byte) error {
	if len(blob) > health.MaxRecord {
		return fmt.Errorf("the health record of instance %s takes %d bytes, and is read up to %d only", id, len(blob), health.MaxRecord)
	}
	whole := false
	r := j.record(id, func(r *record) { whole = r.whole > 0 })
	err := r.Write(blob, whole)
	if err == nil && whole {
		j.record(id, func(r *record) { r.whole-- })
	}
	if errors.Is(err, fs.ErrNotExist) {
		j.forget(id)
		return nil
	}
	return err
}

// Load reads it.
func (j *journal) Load(id string) ([]byte, error) {
	b, err := j.record(id, nil).Read(health.MaxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// SetAside puts an unreadable record out of the way.
func (j *journal) SetAside(id string) error { return j.record(id, nil).SetAside() }

// record is the record of an instance, and what do does with it while nobody else looks at it.
func (j *journal) record(id string, do func(*record)) *record {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.records[id]
	if r == nil {
		if j.records == nil {
			j.records = make(map[string]*record)
		}
		r = &record{Drafted: j.instances.Drafted(id+healthFile, recordWhole)}
		j.records[id] = r
	}
	if do != nil {
		do(r)
	}
	return r
}

func (j *journal) forget(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.records, id)
}

// Replay gives, once, the transitions of an instance that the event log held when the daemon started, oldest first.
func (j *journal) Replay(id string) ([]health.Transition, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer delete(j.replay, id)
	return j.replay[id], nil
}

// drop forgets an instance that was deleted.
func (j *journal) drop(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.replay, id)
	delete(j.records, id)
	delete(j.barred, id)
}

// bar has nothing more told of an instance, until it is admitted again or dropped.
func (j *journal) bar(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.barred == nil {
		j.barred = make(map[string]bool)
	}
	j.barred[id] = true
}

func (j *journal) admit(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.barred, id)
}

func (j *journal) bars(id string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.barred[id]
}

// readTransitions reads the transitions of instances that there are from the event log, and what it says last of the host. One that makes
// no sense is passed over: the record has the status too, and no daemon must fail to start for it.
func readTransitions(ctx context.Context, events *event.Log, there []instance.Instance, log *slog.Logger) (map[string][]health.Transition, health.Suspicion, error) {
	last := events.Last()
	reader := events.Follow(events.Oldest(), "replay")
	defer reader.Close()
	replay, host := make(map[string][]health.Transition), health.Suspicion{}
	known := make(map[string]bool)
	for _, in := range there {
		known[in.ID] = true
	}
	for at := events.Oldest(); at.Seq < last.Seq; {
		e, err := reader.Next(ctx)
		if err != nil {
			return nil, host, err
		}
		at = e.ID
		if e.Type == event.TypeHost {
			var said health.Suspicion
			if json.Unmarshal(e.Data, &said) == nil {
				host = said
			}
		}
		if e.Type != event.TypeHealth || !known[e.Instance] {
			continue
		}
		var t health.Transition
		if err := json.Unmarshal(e.Data, &t); err != nil {
			log.Error("a health event in the log makes no sense; it is passed over", "event", e.ID.String(), "instance", e.Instance, "err", err)
			continue
		}
		replay[e.Instance] = append(replay[e.Instance], t)
	}
	return replay, host, nil
}
