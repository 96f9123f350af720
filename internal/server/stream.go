package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/logfile"
)

// Bounds of a stream of server-sent events.
const (
	heartbeat   = 10 * time.Second // at least every 15 s something is sent, so that no proxy takes it for dead
	streamWrite = 30 * time.Second // a client that takes nothing for so long is gone
	defaultTail = 100
)

// stream is an answer of server-sent events.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// errHead ends a stream of which only the headers are wanted.
var errHead = errors.New("only the headers are wanted")

// openStream sends the headers at once.
func openStream(w http.ResponseWriter, r *http.Request) (*stream, error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	s := &stream{w: w, rc: http.NewResponseController(w)}
	if r.Method == http.MethodHead {
		return s, errHead
	}
	return s, s.flush()
}

func (s *stream) flush() error { return s.rc.Flush() }

// send writes one frame, which ends with an empty line.
func (s *stream) send(frame []byte) error {
	s.rc.SetWriteDeadline(time.Now().Add(streamWrite)) // not every writer has one
	if _, err := s.w.Write(frame); err != nil {
		return err
	}
	return s.flush()
}

// comment keeps the connection alive.
func (s *stream) comment() error { return s.send([]byte(": \n\n")) }

// logFiles are where a source's lines are, below an instance's directory. What lies there may have been written by a
// machine: no link is followed.
var logFiles = map[string]string{
	"app":     "vm/log/app.log",
	"vmm":     "vm/log/vmm.log",
	"hypeman": "hale.log",
}

// logs streams an instance's log: each line is one frame. With ids each has one, and so has the place where it begins.
func (s *Server) logs(w http.ResponseWriter, r *http.Request, id, source string, tail int, follow, ids bool, lastID string) {
	var place logfile.Place
	var err error
	if lastID != "" {
		if place, err = logfile.ParsePlace(lastID); err != nil {
			s.fail(w, r, invalid("Last-Event-ID", "the id of a line of this log"))
			return
		}
	}
	in, err := s.config.Instances.Find(id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	name, ok := logFiles[source]
	if !ok {
		s.fail(w, r, invalid("source", "one of app, vmm, hypeman"))
		return
	}
	root, err := os.OpenRoot(s.config.Instances.Dir(in.ID))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.fail(w, r, fmt.Errorf("open the log: %w", err))
		return
	}
	if root != nil {
		defer root.Close()
	}
	out, err := openStream(w, r)
	if err != nil || root == nil { // it has never run: there are no lines yet
		return
	}
	defer cut(r)
	if lastID == "" {
		if place, err = logfile.At(root, name, tail); err != nil {
			s.log.Warn("read a log", "instance", in.ID, "source", source, "err", err)
			return
		}
		if ids && out.send(fmt.Appendf(nil, "id: %s\n\n", place)) != nil {
			return
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	lines := make(chan numbered)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer close(lines)
		for text, err := range logfile.LinesFrom(ctx, root, name, &place, follow) {
			line := numbered{text: text}
			if ids {
				line.id = place.String()
			}
			if err != nil {
				s.log.Warn("read a log", "instance", in.ID, "source", source, "err", err)
				return
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
	})
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		changed := s.config.Instances.Changed(in.ID)
		if _, err := s.config.Instances.Find(in.ID); err != nil {
			return // deleted: there will be no further line
		}
		select {
		case <-changed:
		case line, ok := <-lines:
			if !ok {
				return
			}
			if out.send(frameOf(line)) != nil {
				return
			}
		case <-beat.C:
			if out.comment() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// A numbered is a line and its id, "" for none.
type numbered struct{ text, id string }

// frameOf is a line as one frame. Bytes that are not UTF-8 are replaced.
func frameOf(line numbered) []byte {
	b, _ := json.Marshal(strings.ToValidUTF8(line.text, "\ufffd")) // a string cannot fail
	if line.id != "" {
		return fmt.Appendf(nil, "id: %s\ndata: %s\n\n", line.id, b)
	}
	return fmt.Appendf(nil, "data: %s\n\n", b)
}

// events streams what happens to the instances, from Last-Event-ID or from now on.
func (s *Server) events(w http.ResponseWriter, r *http.Request, lastID string) {
	var after event.ID
	if lastID != "" {
		var err error
		if after, err = event.ParseID(lastID); err != nil {
			s.fail(w, r, invalid("Last-Event-ID", "an id of an event, EPOCH-SEQ"))
			return
		}
	}
	reader := s.config.Events.Follow(after, "")
	defer reader.Close()
	out, err := openStream(w, r)
	if err != nil {
		return
	}
	defer cut(r)
	if after.IsZero() { // who came to hear what happens next can resume from here, before anything did
		if out.send(fmt.Appendf(nil, "id: %s\n\n", reader.Place())) != nil {
			return
		}
	}
	type read struct {
		e   event.Event
		err error
	}
	ctx, cancel := context.WithCancel(r.Context())
	next := make(chan read)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for {
			e, err := reader.Next(ctx)
			select {
			case next <- read{e, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case n := <-next:
			if n.err != nil || out.send(eventFrame(n.e)) != nil {
				return
			}
		case <-beat.C:
			if out.comment() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// cut breaks an answer off that ends with the daemon or with its token, so that its reader does not take that for the end of what there is.
func cut(r *http.Request) {
	if stopping(r) || errors.Is(context.Cause(r.Context()), errRevoked) {
		panic(http.ErrAbortHandler)
	}
}

func eventFrame(e event.Event) []byte {
	b, err := json.Marshal(api.Event{
		ID: e.ID.String(), Time: e.Time, Type: string(e.Type), Instance: e.Instance, Name: e.Name, Data: e.Data,
	})
	if err != nil {
		b = []byte("{}")
	}
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Type, b)
	return buf.Bytes()
}
