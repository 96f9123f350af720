package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/internal/health"
)

// Bounds on what a guest may send.
const (
	maxHeaders = 64 << 10
	maxBody    = health.MaxBody
	maxDrain   = 64 << 10
	drainTime  = 100 * time.Millisecond
)

var (
	errHeaders = errors.New("more than 64 KiB of headers")
	errBody    = errors.New("its chunks are mostly overhead")
)

// http opens a connection, asks, compares, and ends the connection in order.
func (t Target) http(s *span, p health.Policy) health.Result {
	conn, failed := t.dial(s, p.HTTP.Port)
	if failed != nil {
		return *failed
	}
	defer conn.Close()
	s.hold(conn)
	var x *exchange
	if p.HTTP.Scheme == "https" {
		x = new(exchange) // crypto/tls may close its connection a moment after it has returned
	} else {
		x = exchanges.Get().(*exchange)
		defer x.free()
	}
	x.span, x.target, x.check, x.raw.Conn, x.conn = s, t, p.HTTP, conn, &x.raw
	r := x.run()
	r.Duration = time.Since(s.start)
	if x.answered && s.drain() {
		x.drain()
	}
	return r
}

// An exchange is one request and its answer.
type exchange struct {
	span     *span
	target   Target
	check    *health.HTTPCheck
	raw      counted  // the connection
	conn     net.Conn // what is spoken through: raw, or TLS over it
	answered bool     // there was an answer: the connection can end in order
	buffer   [4 << 10]byte
}

// exchanges are kept for their buffers. Nothing of them is lent to anybody for longer than a call.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func (x *exchange) free() {
	x.span, x.target, x.check, x.raw, x.conn, x.answered = nil, Target{}, nil, counted{}, nil, false
	exchanges.Put(x)
}

// run sends the request and judges what comes back.
func (x *exchange) run() health.Result {
	if x.check.Scheme == "https" {
		secure := tls.Client(&x.raw, tlsConfig(x.check, hostOf(x.check)))
		if err := secure.HandshakeContext(x.span.context()); err != nil {
			return x.handshakeFailed(err)
		}
		x.conn = secure
		x.target.begun()
	}
	// A server may answer and close before it has read everything, so an error here is told only if nothing can be read.
	_, writeErr := x.conn.Write(appendRequest(x.buffer[:0], x.check, x.target.Version))
	head, err := x.readPlain()
	if head.status != 0 && x.check.BodyContains == "" {
		return x.judge(head.status)
	}
	bound := &bounded{r: io.MultiReader(bytes.NewReader(head.read), &failing{x.conn, err}), left: maxHeaders, over: errHeaders}
	answer, err := readAnswer(bufio.NewReader(bound), x.check.Method)
	if err != nil {
		return x.unanswered(cmp.Or(bound.err, x.unread(writeErr), err))
	}
	if x.check.BodyContains == "" || !x.check.Expects(answer.StatusCode) {
		return x.judge(answer.StatusCode)
	}
	x.answered = true
	bound.left, bound.over = 16*maxBody, errBody // of raw bytes: chunks of one byte cost six
	return x.judgeBody(answer)
}

// judge compares the status.
func (x *exchange) judge(status int) health.Result {
	x.answered = true
	if !x.check.Expects(status) {
		return failure(fmt.Sprintf("status %d, expected %s", status, expected(x.check)))
	}
	return success(statusWords(status))
}

func statusWords(status int) string {
	if status == http.StatusOK { // the same words for almost all
		return "status 200"
	}
	return "status " + strconv.Itoa(status)
}

// unread returns the error of a request that could not be sent, if no answer came in spite of it.
func (x *exchange) unread(writeErr error) error {
	if x.raw.received > 0 {
		return nil
	}
	return writeErr
}

// readAnswer reads the head of the answer. Interim ones are skipped; 101 is not one, for no other answer follows it.
func readAnswer(br *bufio.Reader, method string) (*http.Response, error) {
	for {
		answer, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if s := answer.StatusCode; s < 100 || s >= 200 || s == http.StatusSwitchingProtocols {
			return answer, nil
		}
	}
}

// unanswered says what an answer that did not come, or was none, means.
func (x *exchange) unanswered(err error) health.Result {
	if r, ok := hosts(x.span.ctx, err); ok {
		return r
	}
	port, first := x.check.Port, x.raw.received == 0
	switch {
	case errors.Is(err, errHeaders):
		return failure("the answer has " + errHeaders.Error())
	case x.overdue(err) && first:
		return x.span.overdue("no answer to %s %.200s", x.check.Method, x.check.Path)
	case x.overdue(err):
		return x.span.overdue("the answer to %s %.200s is not complete", x.check.Method, x.check.Path)
	}
	if r, ok := brokenOff(err, port, first); ok {
		return r
	}
	return failure("not an HTTP answer: " + words(err))
}

func (x *exchange) overdue(err error) bool { return x.span.over() || timedOut(err) }

func (x *exchange) handshakeFailed(err error) health.Result {
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case notTLS:
		return failure(fmt.Sprintf("port %d does not speak TLS", x.check.Port))
	case untrusted:
		return failure("the certificate is refused: " + words(err))
	case timedOut(err) || reset(err) || errors.Is(err, io.EOF) || x.span.stopped():
		r := x.unanswered(err)
		if r.Outcome == health.Failure {
			r.Reason += ", in the TLS handshake"
		}
		return r
	}
	return failure("TLS handshake: " + words(err))
}

// judgeBody looks for the expected text as the body comes.
func (x *exchange) judgeBody(answer *http.Response) health.Result {
	want := []byte(x.check.BodyContains)
	quoted := fmt.Sprintf("%.100q", x.check.BodyContains)
	body, chunk := make([]byte, 0, 4<<10), make([]byte, 4<<10)
	for len(body) < maxBody {
		n, err := answer.Body.Read(chunk[:min(len(chunk), maxBody-len(body))])
		from := max(0, len(body)-len(want))
		body = append(body, chunk[:n]...)
		if bytes.Contains(body[from:], want) {
			return success(fmt.Sprintf("status %d, and the body contains %s", answer.StatusCode, quoted))
		}
		switch {
		case err == io.EOF:
			return failure("the body does not contain " + quoted)
		case err != nil:
			return x.bodyFailed(err, quoted)
		}
	}
	return failure("the first 64 KiB of the body do not contain " + quoted)
}

func (x *exchange) bodyFailed(err error, quoted string) health.Result {
	if r, ok := hosts(x.span.ctx, err); ok {
		return r
	}
	if x.overdue(err) {
		return x.span.overdue("the body does not contain %s so far", quoted)
	}
	return failure(fmt.Sprintf("the body ends early and does not contain %s: %s", quoted, words(err)))
}

// drain reads what is left, so that the server sees its connection end in order; one that sends on and on is reset.
func (x *exchange) drain() {
	for n := 0; n < maxDrain; {
		got, err := x.conn.Read(x.buffer[:])
		if n += got; err == io.EOF {
			return
		} else if err != nil {
			break
		}
	}
	if l, ok := x.raw.Conn.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0) // other stacks reset a connection that is closed with data unread
	}
}

// expected lists what a status was compared with.
func expected(c *health.HTTPCheck) string {
	if len(c.ExpectedStatuses) == 0 {
		return fmt.Sprint(c.ExpectedStatus)
	}
	return fmt.Sprintf("%.200s", strings.Join(c.ExpectedStatuses, " or "))
}

// counted is a connection that knows how much was received.
type counted struct {
	net.Conn
	received int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received += int64(n)
	return n, err
}

// bounded ends with an error after so many bytes. It remembers what went wrong, for a reader of lines forgets it when it comes in
// the middle of one.
type bounded struct {
	r    io.Reader
	left int
	over error
	err  error // other than io.EOF
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.err = b.over
		return 0, b.err
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// A failing reader has failed already, unless err is nil.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.r.Read(p)
}
