package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/halevm/hale/internal/health"
)

// Bounds on what a server may send to a grpc check. An honest answer takes a few hundred bytes.
const (
	maxFrame   = 16 << 10       // HTTP/2's own default
	maxGRPC    = 2 * maxHeaders // of bytes in all, whatever they are
	maxPings   = 16             // that are answered; SETTINGS too
	maxMessage = 4 << 10        // the answer itself, of which two bytes are needed
)

var (
	errGRPC       = errors.New("more than 128 KiB before its answer was complete")
	errFlood      = errors.New("more than 16 PING and SETTINGS frames")
	errMessage    = errors.New("the answer is no HealthCheckResponse")
	errCompressed = errors.New("the answer is compressed, which was not asked for")
)

const checkPath = "/grpc.health.v1.Health/Check"

// grpc asks grpc.health.v1 for a service's status: one unary call, over HTTP/2 in plain text, on a connection of its own.
//
// The call is made of frames here rather than by google.golang.org/grpc: a client of that kind keeps connections, resolves, retries and
// follows settings, which is state (and memory, in a process that stands beside each machine) that a question asked once has no use for
// and a hostile server has.
func (t Target) grpc(s *span, p health.Policy) health.Result {
	conn, failed := t.dial(s, p.GRPC.Port)
	if failed != nil {
		return *failed
	}
	defer conn.Close()
	s.hold(conn)
	raw := &counted{Conn: conn}
	c := &call{span: s, check: p.GRPC, raw: raw, in: bufio.NewReader(&bounded{r: raw, left: maxGRPC, over: errGRPC})}
	_, writeErr := conn.Write(callBytes(p.GRPC, t.Version, s.timeout))
	r := c.read(writeErr)
	if c.complete && s.drain() {
		c.leave()
	}
	return r
}

// callLimit is how long the server may work on the call. The time of a probe is measured here, where it is known what the host kept from
// it: a server that ended the call by itself at the timeout would have that charged, and would answer rather than be late. It is for a
// server whose client is lost. In milliseconds gRPC takes eight digits, which four times the longest timeout, an hour, has.
func callLimit(timeout time.Duration) time.Duration { return MaxFactor*timeout + time.Second }

// callBytes is everything that is sent before the server speaks: preface, settings, and the call. A client need not wait for the
// server's settings, and until they come the defaults hold, which have room for this.
func callBytes(c *health.GRPCCheck, version string, timeout time.Duration) []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaders})
	var head bytes.Buffer
	h := hpack.NewEncoder(&head)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", checkPath},
		{":authority", net.JoinHostPort("localhost", strconv.Itoa(int(c.Port)))},
		{"te", "trailers"},
		{"grpc-timeout", strconv.FormatInt(callLimit(timeout).Milliseconds(), 10) + "m"},
		{"content-type", "application/grpc"},
		{"user-agent", "hale-probe/" + version},
	} {
		h.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true})
	f.WriteData(1, true, healthRequest(c.Service))
	return b.Bytes()
}

// healthRequest is a HealthCheckRequest{service = 1} with the five bytes that gRPC puts before a message.
func healthRequest(service string) []byte {
	var m []byte
	if service != "" {
		m = append(m, 1<<3|2)
		m = binary.AppendUvarint(m, uint64(len(service)))
		m = append(m, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

// A call is one question and its answer.
type call struct {
	span     *span
	check    *health.GRPCCheck
	raw      *counted
	in       *bufio.Reader
	frames   *http2.Framer
	answered int    // PING and SETTINGS frames
	headers  bool   // those of the answer came
	message  []byte // of the answer, as far as it came
	complete bool   // the stream has ended
}

// read returns what the server's answer amounts to.
func (c *call) read(writeErr error) health.Result {
	if r, ok := c.greet(writeErr); !ok {
		return r
	}
	c.frames = http2.NewFramer(c.raw, c.in)
	c.frames.SetMaxReadFrameSize(maxFrame)
	c.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.frames.MaxHeaderListSize = maxHeaders
	for first := true; ; first = false {
		f, err := c.frames.ReadFrame()
		if err != nil {
			return c.broken(err)
		}
		if _, ok := f.(*http2.SettingsFrame); first && !ok {
			return failure(fmt.Sprintf("port %d does not speak HTTP/2, which gRPC needs: its first frame is a %s", c.check.Port, f.Header().Type))
		}
		if r, done := c.take(f); done {
			return r
		}
	}
}

// greet looks at the first bytes, for what speaks something else deserves better words than a broken frame.
func (c *call) greet(writeErr error) (health.Result, bool) {
	const look = 5
	b, err := c.in.Peek(look)
	port := c.check.Port
	switch {
	case len(b) > 0 && string(b) == "HTTP/"[:len(b)]:
		return failure(fmt.Sprintf("port %d speaks HTTP/1, not gRPC: a grpc check needs HTTP/2 in plain text", port)), false
	case len(b) >= 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3: // an alert or a handshake
		return failure(fmt.Sprintf("port %d speaks TLS: a grpc check is in plain text", port)), false
	case err != nil && len(b) == 0:
		return c.broken(cmp.Or(writeErr, err)), false
	case err != nil:
		return c.broken(err), false
	}
	return health.Result{}, true
}

// take takes one frame; done says that the result is known.
func (c *call) take(f http2.Frame) (r health.Result, done bool) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.reply(func() error { return c.frames.WriteSettingsAck() })
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.reply(func() error { return c.frames.WritePing(true, f.Data) })
		}
	case *http2.GoAwayFrame:
		if f.LastStreamID < 1 || f.ErrCode != http2.ErrCodeNo {
			return failure(fmt.Sprintf("the server ended the connection: %s%s", f.ErrCode, debugData(f.DebugData()))), true
		}
	case *http2.RSTStreamFrame:
		if f.StreamID == 1 {
			return failure(fmt.Sprintf("the server reset the call: %s", f.ErrCode)), true
		}
	case *http2.PushPromiseFrame:
		return failure("the server does not keep to HTTP/2: it pushes, which it was asked not to do"), true
	case *http2.MetaHeadersFrame:
		if f.StreamID == 1 {
			return c.takeHeaders(f)
		}
	case *http2.DataFrame:
		if f.StreamID == 1 {
			return c.takeData(f)
		}
	}
	return health.Result{}, false
}

// reply answers what HTTP/2 wants answered, a bounded number of times. A server that does not read it has its own reasons.
func (c *call) reply(write func() error) (health.Result, bool) {
	if c.answered++; c.answered > maxPings {
		return c.broken(errFlood), true
	}
	if err := write(); err != nil && c.span.stopped() {
		return c.broken(err), true
	}
	return health.Result{}, false
}

func (c *call) takeHeaders(f *http2.MetaHeadersFrame) (health.Result, bool) {
	if f.Truncated {
		return failure("the answer has " + errHeaders.Error()), true
	}
	if !c.headers {
		status := f.PseudoValue("status")
		if len(status) == 3 && status[0] == '1' && !f.StreamEnded() {
			return health.Result{}, false // interim
		}
		if kind := field(f, "content-type"); status != "200" || !strings.HasPrefix(kind, "application/grpc") {
			return failure(fmt.Sprintf("port %d speaks HTTP/2, but not gRPC: status %.20q, content type %.100q", c.check.Port, status, kind)), true
		}
		c.headers = true
	}
	if !f.StreamEnded() {
		return health.Result{}, false
	}
	c.complete = true
	return c.judge(field(f, "grpc-status"), field(f, "grpc-message")), true
}

func (c *call) takeData(f *http2.DataFrame) (health.Result, bool) {
	if !c.headers {
		return failure("the server does not keep to HTTP/2: the answer begins with data"), true
	}
	if len(c.message)+len(f.Data()) > 5+maxMessage {
		return failure("the answer is larger than 4 KiB"), true
	}
	c.message = append(c.message, f.Data()...)
	if f.StreamEnded() {
		c.complete = true
		return failure("the answer ends without a gRPC status"), true
	}
	return health.Result{}, false
}

// judge says what a complete answer means.
func (c *call) judge(status, message string) health.Result {
	code, err := strconv.ParseUint(status, 10, 32)
	switch {
	case err != nil:
		return failure("the answer ends without a gRPC status")
	case code == 5:
		return failure(fmt.Sprintf("the server knows no service %.200q (NOT_FOUND)", c.check.Service))
	case code == 12:
		return failure("the server does not implement grpc.health.v1.Health (UNIMPLEMENTED): its health service has to be registered")
	case code != 0:
		text := fmt.Sprintf("gRPC status %s", codeName(code))
		if message = unescape(message); message != "" {
			text += fmt.Sprintf(": %.200s", message)
		}
		return failure(text)
	}
	serving, err := healthResponse(c.message)
	if err != nil {
		return failure(err.Error())
	}
	if serving != 1 {
		return failure(fmt.Sprintf("%s is %s", c.subject(), servingName(serving)))
	}
	return success(c.subject() + " is SERVING")
}

func (c *call) subject() string {
	if c.check.Service == "" {
		return "the server"
	}
	return fmt.Sprintf("service %.200q", c.check.Service)
}

// healthResponse reads the status of a HealthCheckResponse{status = 1} with its five bytes. As everywhere in protobuf the last value
// counts, what is not known is skipped, and what is missing is 0.
func healthResponse(b []byte) (status uint64, err error) {
	if len(b) < 5 {
		return 0, errMessage
	}
	if b[0] != 0 {
		return 0, errCompressed
	}
	if m := binary.BigEndian.Uint32(b[1:]); uint64(m) != uint64(len(b)-5) {
		return 0, errMessage
	}
	for b = b[5:]; len(b) > 0; {
		key, n := binary.Uvarint(b)
		if n <= 0 || key>>3 == 0 || key>>3 >= 1<<29 {
			return 0, errMessage
		}
		b = b[n:]
		skip := uint64(0)
		switch key & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, errMessage
			}
			if key>>3 == 1 {
				status = v
			}
			skip = uint64(n)
		case 1:
			skip = 8
		case 2:
			v, n := binary.Uvarint(b)
			if n <= 0 || v > maxMessage {
				return 0, errMessage
			}
			skip = uint64(n) + v
		case 5:
			skip = 4
		default: // groups, which proto3 does not have
			return 0, errMessage
		}
		if skip > uint64(len(b)) {
			return 0, errMessage
		}
		b = b[skip:]
	}
	return status, nil
}

// broken says what a connection means that came to no answer.
func (c *call) broken(err error) health.Result {
	if r, ok := hosts(c.span.ctx, err); ok {
		return r
	}
	first, port := c.raw.received == 0, c.check.Port
	_, stream := errors.AsType[http2.StreamError](err)
	_, conn := errors.AsType[http2.ConnectionError](err)
	switch {
	case errors.Is(err, errGRPC), errors.Is(err, errFlood):
		return failure("the server sends " + err.Error())
	case c.span.over() || timedOut(err):
		return c.span.overdue("no answer to the gRPC call on port %d", port)
	}
	if r, ok := brokenOff(err, port, first); ok {
		return r
	}
	if stream || conn || errors.Is(err, http2.ErrFrameTooLarge) {
		return failure(fmt.Sprintf("port %d does not speak HTTP/2, which gRPC needs: %s", port, words(err)))
	}
	return failure("not a gRPC answer: " + words(err))
}

// leave ends the connection in order: the server is told, and sees its end before we close.
func (c *call) leave() {
	c.raw.SetDeadline(time.Now().Add(drainTime))
	c.frames.WriteGoAway(0, http2.ErrCodeNo, nil)
	if w, ok := c.raw.Conn.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
		io.Copy(io.Discard, io.LimitReader(c.raw, maxDrain))
	}
}

func field(f *http2.MetaHeadersFrame, name string) string {
	for _, h := range f.RegularFields() {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func debugData(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.100s)", b)
}

// unescape undoes the percent signs of a grpc-message; what is no valid escape stays as it came.
func unescape(s string) string {
	s = s[:min(len(s), 1024)]
	if t, err := url.PathUnescape(s); err == nil {
		return t
	}
	return s
}

var codeNames = [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

func codeName(code uint64) string {
	if code < uint64(len(codeNames)) {
		return codeNames[code]
	}
	return strconv.FormatUint(code, 10)
}

func servingName(status uint64) string {
	if names := [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}; status < uint64(len(names)) {
		return names[status]
	}
	return fmt.Sprintf("in status %d", status)
}
