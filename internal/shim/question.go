package shim

import (
	"bytes"
	"encoding/json"
	"net"
	"strconv"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/quiet"
	"github.com/halevm/hale/internal/shim/protocol"
)

// A probe's question and its answer are nearly all that is said on a control connection, and nearly always what was said before but for a
// number or two. They are written and read here by hand, as encoding/json would; what looks otherwise is left to it.

// appendQuestion appends a protocol.Request for a probe; params is a protocol.Probe.
func appendQuestion(b []byte, id uint64, params json.RawMessage) []byte {
	b = strconv.AppendUint(append(b, `{"id":`...), id, 10)
	b = append(append(b, `,"method":"`+protocol.MethodProbe+`","params":`...), params...)
	return append(b, '}')
}

// sendFrame makes a frame whole and sends it, and waits no longer than limit for room.
func sendFrame(conn net.Conn, frame []byte, limit time.Duration) error {
	frame, err := protocol.End(frame)
	if err != nil {
		return err
	}
	if q, ok := conn.(*quiet.Conn); ok {
		_, err = q.WriteWithin(frame, limit)
		return err
	}
	conn.SetWriteDeadline(time.Now().Add(limit))
	_, err = conn.Write(frame)
	return err
}

// A recall decodes requests, and remembers the last.
type recall struct {
	rest    []byte // of its text, from behind its id; nil: it is not remembered
	request protocol.Request
}

func (q *recall) decode(payload []byte) (protocol.Request, error) {
	c := cursor{payload}
	id, numbered := uint64(0), c.word(`{"id":`)
	if numbered {
		id, numbered = c.number()
	}
	if numbered && q.rest != nil && bytes.Equal(c.left, q.rest) {
		r := q.request
		r.ID = id
		return r, nil
	}
	var r protocol.Request
	if err := json.Unmarshal(payload, &r); err != nil {
		return r, err
	}
	q.rest = nil
	if numbered && r.Method == protocol.MethodProbe && !again(c.left) {
		q.rest, q.request = bytes.Clone(c.left), r
	}
	return r, nil
}

// again reports whether a request may have a second id, which would be the one that counts. encoding/json takes "ID" and "\u0069d" for it too.
func again(rest []byte) bool {
	return bytes.Contains(bytes.ToLower(rest), []byte(`"id"`)) || bytes.Contains(rest, []byte(`\u`))
}

// appendAnswer appends the protocol.Reply with what a probe found; false where it is not as it nearly always is: a success.
func appendAnswer(b []byte, id uint64, r *health.Result) ([]byte, bool) {
	if *r != (health.Result{Start: r.Start, Duration: r.Duration, Outcome: health.Success, Reason: r.Reason}) || r.Duration < 0 || !plain(r.Reason) || r.Reason == "" {
		return b, false
	}
	b = strconv.AppendUint(append(b, `{"id":`...), id, 10)
	b = r.Start.UTC().AppendFormat(append(b, `,"result":{"time":"`...), time.RFC3339Nano)
	b = strconv.AppendInt(append(b, `","duration":`...), int64(r.Duration), 10)
	b = append(append(b, `,"outcome":"`...), r.Outcome...)
	b = append(append(b, `","reason":"`...), r.Reason...)
	return append(b, `"}}`...), true
}

// readAnswer reads what appendAnswer wrote, and an earlier shim's encoding/json. Words that r has already are used again.
func readAnswer(payload []byte, r *health.Result) (id uint64, ok bool) {
	c := cursor{payload}
	var duration uint64
	var start, reason []byte
	ok = c.word(`{"id":`) && c.is(&id) && c.word(`,"result":{"time":"`) && c.text(&start) &&
		c.word(`,"duration":`) && c.is(&duration) && c.word(`,"outcome":"success","reason":"`) && c.text(&reason) && c.word(`}}`) && len(c.left) == 0
	if !ok {
		return 0, false
	}
	found := health.Result{Duration: time.Duration(duration), Outcome: health.Success, Reason: r.Reason}
	if found.Start.UnmarshalText(start) != nil {
		return 0, false
	}
	if string(reason) != found.Reason {
		found.Reason = string(reason)
	}
	*r = found
	return id, true
}

// plain reports whether a text is the same between quotes in JSON.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// A cursor goes through a text.
type cursor struct{ left []byte }

func (c *cursor) word(w string) bool {
	if len(c.left) < len(w) || string(c.left[:len(w)]) != w {
		return false
	}
	c.left = c.left[len(w):]
	return true
}

// number reads one as encoding/json writes it, of at most 18 digits.
func (c *cursor) number() (n uint64, ok bool) {
	i := 0
	for i < len(c.left) && '0' <= c.left[i] && c.left[i] <= '9' {
		n = n*10 + uint64(c.left[i]-'0')
		if i++; i > 18 {
			return 0, false
		}
	}
	if i == 0 || i > 1 && c.left[0] == '0' {
		return 0, false
	}
	c.left = c.left[i:]
	return n, true
}

func (c *cursor) is(n *uint64) (ok bool) {
	*n, ok = c.number()
	return ok
}

// text reads a plain one and the quote behind it.
func (c *cursor) text(t *[]byte) bool {
	i := bytes.IndexByte(c.left, '"')
	if i < 0 {
		return false
	}
	*t, c.left = c.left[:i], c.left[i+1:]
	return plain(string(*t))
}
