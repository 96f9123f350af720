package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxLine bounds one message of QEMU's. The longest answer that is asked for here is a few hundred bytes.
const maxLine = 256 << 10

// errClosed is the answer to a command whose QEMU has gone.
var errClosed = errors.New("qmp: the connection is closed")

// A qmpError is QEMU's refusal of a command.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return "qmp: " + e.Desc }

// qmpMessage is any line that QEMU sends.
type qmpMessage struct {
	Greeting  json.RawMessage `json:"QMP"`
	ID        uint64          `json:"id"`
	Return    json.RawMessage `json:"return"`
	Error     *qmpError       `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// qmp is a connection to QEMU's monitor (docs/interop/qmp-spec in QEMU's tree).
type qmp struct {
	conn   net.Conn
	events func(name string, data json.RawMessage, at time.Time) // called from the reader, in order

	writeMu sync.Mutex
	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]chan qmpMessage // nil: closed
	done    chan struct{}
}

// newQMP begins to read conn. Nothing may be executed before ready has returned.
func newQMP(conn net.Conn, events func(string, json.RawMessage, time.Time)) *qmp {
	q := &qmp{conn: conn, events: events, pending: make(map[uint64]chan qmpMessage), done: make(chan struct{})}
	go q.read()
	return q
}

// ready leaves the negotiation of capabilities. QEMU takes the command as soon as it reads; the greeting comes before its answer.
func (q *qmp) ready(ctx context.Context) error {
	return q.execute(ctx, "qmp_capabilities", nil, nil)
}

// execute runs one command and decodes what it returns into result, unless that is nil.
func (q *qmp) execute(ctx context.Context, command string, arguments, result any) error {
	answer := make(chan qmpMessage, 1)
	q.mu.Lock()
	if q.pending == nil {
		q.mu.Unlock()
		return errClosed
	}
	q.nextID++
	id := q.nextID
	q.pending[id] = answer
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.pending, id)
		q.mu.Unlock()
	}()

	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return fmt.Errorf("qmp: encode %s: %w", command, err)
	}
	q.writeMu.Lock()
	q.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err = q.conn.Write(append(line, '\n'))
	q.writeMu.Unlock()
	if err != nil {
		return fmt.Errorf("qmp: send %s: %w", command, err)
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return errClosed
		case m.Error != nil:
			return fmt.Errorf("%s: %w", command, m.Error)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Return, result)
	case <-ctx.Done():
		return fmt.Errorf("qmp: %s: %w", command, context.Cause(ctx))
	}
}

// close ends the connection and returns when the reader has ended.
func (q *qmp) close() {
	q.conn.Close()
	<-q.done
}

func (q *qmp) read() {
	defer close(q.done)
	defer q.conn.Close() // a QEMU that is not understood any more is not listened to
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, answer := range q.pending {
			close(answer)
		}
		q.pending = nil
	}()
	lines := bufio.NewScanner(q.conn)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	for lines.Scan() {
		var m qmpMessage
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			return // QEMU does not speak QMP: whoever waits is told that the connection ended
		}
		switch {
		case m.Event != "":
			q.events(m.Event, m.Data, time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000))
		case m.Greeting != nil:
		default:
			q.mu.Lock()
			if answer, ok := q.pending[m.ID]; ok {
				delete(q.pending, m.ID)
				answer <- m
			}
			q.mu.Unlock()
		}
	}
}
