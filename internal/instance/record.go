package instance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"time"

	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/store"
)

const (
	recordName    = "instance.json"
	recordVersion = 1
	maxRecordSize = 4 << 20   // what is larger is not read again, and so never written
	recordReserve = 128 << 10 // of that, for what is to happen: the published ports, how a run ended
	machineDir    = "vm"
)

// A record is what is kept of an instance on disk: DIR/instances/ID/instance.json.
type record struct {
	Instance Instance     `json:"instance"`
	Image    Image        `json:"image"` // as it was at create: a tag that moves changes nothing
	Addr     netip.Prefix `json:"addr,omitzero"`
	// Seen is the log's newest event when this was prepared. An event of this instance behind it is the one that commits this.
	// Zero: its event was in the log before.
	Seen     event.ID `json:"seen,omitzero"`
	Deleting bool     `json:"deleting,omitempty"` // once committed, the instance is deleted
	// Stopping says of an instance that is Unknown that it was Shutdown before: its stop goes on once its machine can be reached.
	Stopping bool `json:"stopping,omitempty"`
	// Ended is when the machine before the present boot ended, by its own word: what it left to read is not of this one.
	Ended time.Time `json:"ended,omitzero"`
}

// prepare puts r on disk beside the record that it will replace; the event that commits it comes next.
func (s *Set) prepare(r record) (*store.Pending, error) {
	r.Seen = s.c.Events.Last()
	return s.put(r)
}

func (s *Set) put(r record) (*store.Pending, error) {
	data, err := encode(r, maxRecordSize)
	if err != nil {
		return nil, err
	}
	return s.store.Prepare(path.Join(r.Instance.ID, recordName), data)
}

// fits refuses what is asked for when its record would have no room for what is to happen to the instance.
func fits(r record) error {
	_, err := encode(r, maxRecordSize-recordReserve)
	return err
}

// encode refuses by its largest part what no daemon would read.
func encode(r record, most int) ([]byte, error) {
	data, err := store.EncodeJSON(recordVersion, r)
	if err != nil {
		return nil, fmt.Errorf("encode the record of instance %s: %w", r.Instance.ID, err)
	}
	if len(data) <= most {
		return data, nil
	}
	spec := r.Instance.Spec
	field, largest := "image", jsonSize(r.Image)
	for _, part := range []struct {
		field string
		value any
	}{
		{"entrypoint", spec.Entrypoint},
		{"cmd", spec.Cmd},
		{"env", spec.Env},
		{"tags", spec.Tags},
		{"network.ports", spec.Ports},
		{"network.allow", spec.AllowNets},
		{"health_check", spec.HealthCheck},
	} {
		if size := jsonSize(part.value); size > largest {
			field, largest = part.field, size
		}
	}
	return nil, invalid(field, fmt.Sprintf("what is kept of the instance would take %d bytes as JSON, %d of them for this: at most %d can be kept", len(data), largest, most))
}

// errHalfMade is an instance whose creation was never committed.
var errHalfMade = errors.New("never committed")

// errDeleted is an instance whose deletion was committed, and not finished.
var errDeleted = errors.New("deleted")

// load reads the record of instance id, and first finishes what a crash interrupted: a prepared record is put in place
// when the log holds the event that commits it, and dropped when not.
func (s *Set) load(ctx context.Context, id string) (record, error) {
	name := path.Join(id, recordName)
	if p, err := s.store.Prepared(name); err == nil {
		r, torn := s.decode(name, func() ([]byte, error) { return p.Read(maxRecordSize) })
		if torn == nil {
			committed, err := s.committed(ctx, r)
			switch {
			case err != nil:
				return record{}, err
			case committed:
				if err := p.Commit(); err != nil && !r.Deleting {
					return record{}, err
				}
				if r.Deleting { // the record says so from now on: its event is not kept for ever
					return r, errDeleted
				}
				return r, nil
			}
		}
		// Torn, or never committed: a record is only committed when it is whole.
		if there, err := s.store.Exists(name); err != nil {
			return record{}, err
		} else if !there {
			return r, s.halfMade(id, torn == nil)
		}
		p.Abort()
	}
	r, err := s.decode(name, func() ([]byte, error) { return s.store.ReadFile(name, maxRecordSize) })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, s.halfMade(id, false)
	case err != nil:
		return r, err
	case r.Instance.ID != id:
		return r, &store.Unreadable{Path: s.store.Path(name), Err: fmt.Errorf("it is the record of instance %q", clip(r.Instance.ID))}
	case r.Deleting:
		return r, errDeleted
	}
	return r, nil
}

// halfMade is what an instance without a record is. Its machine's directory is made when the record is prepared, so where there is one and no
// sound record of either kind, it is no creation that was cut short: somebody's disk may lie there.
func (s *Set) halfMade(id string, prepared bool) error {
	there, err := s.store.Exists(path.Join(id, machineDir))
	if err == nil && there && !prepared {
		err = &store.Unreadable{Path: s.store.Path(path.Join(id, recordName)), Err: errors.New("it is missing, and the machine's directory is there")}
	}
	return cmp.Or(err, errHalfMade)
}

func (s *Set) decode(name string, read func() ([]byte, error)) (record, error) {
	data, err := read()
	if err != nil {
		return record{}, err
	}
	r, err := store.DecodeJSON[record](recordVersion, data)
	if err != nil {
		return record{}, &store.Unreadable{Path: s.store.Path(name), Err: err}
	}
	return r, nil
}

// committed reports whether the log holds an event of the record's instance behind what the record had seen.
func (s *Set) committed(ctx context.Context, r record) (bool, error) {
	last := s.c.Events.Last()
	switch r.Seen {
	case event.ID{}:
		return true, nil
	case last:
		return false, nil
	}
	reader := s.c.Events.Follow(r.Seen, "instances")
	defer reader.Close()
	for {
		e, err := reader.Next(ctx)
		switch {
		case err != nil:
			return false, fmt.Errorf("read the event log: %w", err)
		case e.Type == event.TypeResync:
			return false, nil // what it had seen is lost, and so is what would commit it
		case e.Instance == r.Instance.ID && e.Type != event.TypeHealth:
			return true, nil
		case e.ID == last:
			return false, nil
		}
	}
}
