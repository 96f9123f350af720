package probe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/halevm/hale/internal/health"
)

// serveGRPC serves a real server; it returns the port.
func serveGRPC(t *testing.T, s *grpc.Server) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

func checkGRPC(t *testing.T, port int, rest string) health.Result {
	t.Helper()
	return Run(t.Context(), loopback, policy(t, `{"grpc":{"port":%d%s}}`, port, rest))
}

// The library's own server and health service.
func TestGRPC(t *testing.T) {
	s, service := grpc.NewServer(), grpchealth.NewServer()
	grpc_health_v1.RegisterHealthServer(s, service)
	service.SetServingStatus("db", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	service.SetServingStatus("web", grpc_health_v1.HealthCheckResponse_SERVING)
	service.SetServingStatus("odd", grpc_health_v1.HealthCheckResponse_UNKNOWN)
	long := strings.Repeat("s", health.MaxService)
	service.SetServingStatus(long, grpc_health_v1.HealthCheckResponse_SERVING)
	port := serveGRPC(t, s)
	for _, c := range []struct {
		service string
		outcome health.Outcome
		reason  string
	}{
		{"", health.Success, "the server is SERVING"},
		{"web", health.Success, `service "web" is SERVING`},
		{long, health.Success, "is SERVING"},
		{"db", health.Failure, `service "db" is NOT_SERVING`},
		{"odd", health.Failure, `service "odd" is UNKNOWN`},
		{"nope", health.Failure, `the server knows no service "nope" (NOT_FOUND)`},
	} {
		found(t, checkGRPC(t, port, fmt.Sprintf(`,"service":%q`, c.service)), c.outcome, c.reason)
	}
	service.Shutdown()
	found(t, checkGRPC(t, port, ""), health.Failure, "the server is NOT_SERVING")
	s.Stop()
	found(t, checkGRPC(t, port, ""), health.Failure, fmt.Sprintf("connection refused (port %d)!", port))
}

// asked is a health service that shows what it was asked, and answers with an error.
type asked struct {
	grpc_health_v1.UnimplementedHealthServer
	t   *testing.T
	err error
}

func (a asked) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > callLimit(2*time.Second) {
		a.t.Errorf("deadline %v", deadline)
	}
	if got := fmt.Sprint(md["user-agent"], md[":authority"], r.Service); !strings.HasPrefix(got, "[hale-probe/1.2.3] [localhost:") || !strings.HasSuffix(got, "]é") {
		a.t.Error(got)
	}
	return nil, a.err
}

func TestGRPCErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		reason string
	}{
		{status.Error(codes.Unavailable, "no database, 100% é"), "gRPC status UNAVAILABLE: no database, 100% é"},
		{status.Error(codes.Code(77), ""), "gRPC status 77"},
	} {
		s := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(s, asked{t: t, err: c.err})
		found(t, checkGRPC(t, serveGRPC(t, s), `,"service":"é"`), health.Failure, c.reason)
	}
	found(t, checkGRPC(t, serveGRPC(t, grpc.NewServer()), ""), health.Failure, "does not implement grpc.health.v1.Health (UNIMPLEMENTED)")
}

// A slowHealth answers after a while, unless the call was ended before that.
type slowHealth struct {
	grpc_health_v1.UnimplementedHealthServer
	after time.Duration
}

func (h slowHealth) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	select {
	case <-time.After(h.after):
		return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// The server does not end the call at the timeout: it is the probe that does, and one that goes on because the host kept it from running
// gets the answer.
func TestGRPCTimeIsTheProbes(t *testing.T) {
	begin := func(after time.Duration) int {
		s := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(s, slowHealth{after: after})
		return serveGRPC(t, s)
	}
	port := begin(time.Hour)
	found(t, Run(t.Context(), loopback, policy(t, `{"grpc":{"port":%d},"timeout":"100ms"}`, port)), health.Failure, fmt.Sprintf("timeout after 100ms: no answer to the gRPC call on port %d", port))

	starved := loopback
	starved.RunDelay = delays(900)
	r := Run(t.Context(), starved, policy(t, `{"grpc":{"port":%d},"timeout":"200ms"}`, begin(300*time.Millisecond)))
	found(t, r, health.Success, "the server is SERVING")
	if most := strconv.FormatInt(callLimit(time.Hour).Milliseconds(), 10); len(most) > 8 {
		t.Errorf("gRPC takes no timeout of %s ms", most)
	}
}

// hears is a server that reads the call, all of it, and then does what it likes.
func hears(t *testing.T, do func(c net.Conn, in io.Reader)) int {
	return raw(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		io.CopyN(io.Discard, in, int64(len(http2.ClientPreface)))
		f := http2.NewFramer(nil, in)
		for {
			got, err := f.ReadFrame()
			if err != nil {
				return
			}
			if got.Header().Type == http2.FrameData {
				break
			}
		}
		do(c, in)
	})
}

// utters is one that says these bytes then, and closes.
func utters(t *testing.T, answer string) int {
	return hears(t, func(c net.Conn, _ io.Reader) { io.WriteString(c, answer) })
}

// frames is a server that reads the call and then says what it likes in frames.
func frames(t *testing.T, say func(c net.Conn, f *http2.Framer)) int {
	return hears(t, func(c net.Conn, in io.Reader) {
		f := http2.NewFramer(c, nil)
		f.WriteSettings()
		say(c, f)
		go io.Copy(io.Discard, in)
		io.Copy(io.Discard, c)
	})
}

// head is a block of headers, in pairs.
func head(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

func headers(f *http2.Framer, end bool, pairs ...string) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(pairs...), EndHeaders: true, EndStream: end})
}

// message is a gRPC message around some bytes of protobuf.
func message(b ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

var okHead = []string{":status", "200", "content-type", "application/grpc"}

// forever says it until nobody listens.
func forever(say func() error) {
	for say() == nil {
	}
}

func TestHostileGRPC(t *testing.T) {
	answer := func(m []byte, trailers ...string) int {
		return frames(t, func(c net.Conn, f *http2.Framer) {
			headers(f, false, okHead...)
			f.WriteData(1, false, m)
			headers(f, true, trailers...)
		})
	}
	for _, c := range []struct {
		name   string
		port   int
		reason string
	}{
		{"closed port", closedPort(t), "connection refused (port %d)!"},
		{"closes", hears(t, func(net.Conn, io.Reader) {}), "closed before the first byte (port %d)!"},
		{"resets", hears(t, func(c net.Conn, _ io.Reader) { c.(*net.TCPConn).SetLinger(0) }), "connection reset before the first byte (port %d)!"},
		{"never answers", raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }), "timeout after 300ms: no answer to the gRPC call on port %d"},
		{"settings and no more", frames(t, func(net.Conn, *http2.Framer) {}), "timeout after 300ms: no answer to the gRPC call"},
		{"HTTP/1", utters(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), "port %d speaks HTTP/1, not gRPC"},
		{"half a word of HTTP/1", utters(t, "HTT"), "port %d speaks HTTP/1, not gRPC"},
		{"TLS", utters(t, "\x15\x03\x01\x00\x02\x02\x46"), "port %d speaks TLS: a grpc check is in plain text"},
		{"SSH", utters(t, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), "does not speak HTTP/2"},
		{"no settings first", hears(t, func(c net.Conn, _ io.Reader) { http2.NewFramer(c, nil).WritePing(false, [8]byte{}) }), "its first frame is a PING"},
		{"half a frame", utters(t, "\x00\x00\x0c\x04\x00\x00\x00"), "closed in the middle of the answer"},
		{"endless settings", frames(t, func(_ net.Conn, f *http2.Framer) {
			forever(func() error { return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}) })
		}), "the server sends more than 16 PING and SETTINGS frames"},
		{"pings", frames(t, func(_ net.Conn, f *http2.Framer) {
			forever(func() error { return f.WritePing(false, [8]byte{1}) })
		}), "the server sends more than 16 PING and SETTINGS frames"},
		{"acknowledgements of nothing", frames(t, func(_ net.Conn, f *http2.Framer) { forever(f.WriteSettingsAck) }), "the server sends more than 128 KiB"},
		{"window updates", frames(t, func(_ net.Conn, f *http2.Framer) {
			forever(func() error { return f.WriteWindowUpdate(0, 1) })
		}), "the server sends more than 128 KiB"},
		{"frames of unknown types", frames(t, func(_ net.Conn, f *http2.Framer) {
			forever(func() error { return f.WriteRawFrame(0x42, 0, 9, make([]byte, maxFrame)) })
		}), "the server sends more than 128 KiB"},
		{"continuations without end", frames(t, func(_ net.Conn, f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(okHead...)})
			block := head("x-junk", strings.Repeat("junk", 1000))
			forever(func() error { return f.WriteContinuation(1, false, block) })
		}), "!"},
		{"empty continuations", frames(t, func(_ net.Conn, f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(okHead...)})
			forever(func() error { return f.WriteContinuation(1, false, nil) })
		}), "the server sends more than 128 KiB"},
		{"giant headers", frames(t, func(_ net.Conn, f *http2.Framer) {
			// A field in the table is named by one byte: 200 bytes of them are 700 KB of headers.
			var b bytes.Buffer
			e := hpack.NewEncoder(&b)
			for range 200 {
				e.WriteField(hpack.HeaderField{Name: "x-junk", Value: strings.Repeat("junk", 900)})
			}
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.Bytes(), EndHeaders: true})
		}), "more than 64 KiB of headers"},
		{"a frame over the bound", frames(t, func(c net.Conn, _ *http2.Framer) { c.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}) }), "does not speak HTTP/2"},
		{"a broken table", frames(t, func(c net.Conn, f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff}, EndHeaders: true})
		}), "does not speak HTTP/2"},
		{"wrong content type", frames(t, func(_ net.Conn, f *http2.Framer) {
			headers(f, true, ":status", "200", "content-type", "text/html")
		}), `port %d speaks HTTP/2, but not gRPC: status "200", content type "text/html"`},
		{"not found", frames(t, func(_ net.Conn, f *http2.Framer) { headers(f, true, ":status", "404") }), `but not gRPC: status "404"`},
		{"trailers only", frames(t, func(_ net.Conn, f *http2.Framer) {
			headers(f, true, append(okHead, "grpc-status", "14", "grpc-message", "over%20loaded")...)
		}), "gRPC status UNAVAILABLE: over loaded"},
		{"trailers only that say all is well", frames(t, func(_ net.Conn, f *http2.Framer) {
			headers(f, true, append(okHead, "grpc-status", "0")...)
		}), "the answer is no HealthCheckResponse"},
		{"no trailers", frames(t, func(_ net.Conn, f *http2.Framer) {
			headers(f, false, okHead...)
			f.WriteData(1, true, message(8, 1))
		}), "the answer ends without a gRPC status"},
		{"trailers without a status", answer(message(8, 1), "x", "y"), "the answer ends without a gRPC status"},
		{"a status that is none", answer(message(8, 1), "grpc-status", "-1"), "the answer ends without a gRPC status"},
		{"SERVING, but an error", answer(message(8, 1), "grpc-status", "13"), "gRPC status INTERNAL"},
		{"no message", answer(nil, "grpc-status", "0"), "the answer is no HealthCheckResponse"},
		{"an empty message", answer(message(), "grpc-status", "0"), "the server is UNKNOWN"},
		{"half a message", answer(message(8, 1)[:6], "grpc-status", "0"), "the answer is no HealthCheckResponse"},
		{"two messages", answer(append(message(8, 1), message(8, 1)...), "grpc-status", "0"), "the answer is no HealthCheckResponse"},
		{"compressed", answer([]byte{1, 0, 0, 0, 2, 8, 1}, "grpc-status", "0"), "the answer is compressed"},
		{"a status from the future", answer(message(8, 9), "grpc-status", "0"), "the server is in status 9"},
		{"a large message", answer(make([]byte, 8<<10), "grpc-status", "0"), "the answer is larger than 4 KiB"},
		{"data first", frames(t, func(_ net.Conn, f *http2.Framer) { f.WriteData(1, false, message(8, 1)) }), "the answer begins with data"},
		{"a push", frames(t, func(_ net.Conn, f *http2.Framer) {
			f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: head(":method", "GET"), EndHeaders: true})
		}), "it pushes"},
		{"goes away", frames(t, func(_ net.Conn, f *http2.Framer) { f.WriteGoAway(0, http2.ErrCodeNo, nil) }), "the server ended the connection: NO_ERROR"},
		{"goes away for a reason", frames(t, func(_ net.Conn, f *http2.Framer) {
			f.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings"))
		}), "the server ended the connection: ENHANCE_YOUR_CALM (too_many_pings)"},
		{"resets the stream", frames(t, func(_ net.Conn, f *http2.Framer) { f.WriteRSTStream(1, http2.ErrCodeRefusedStream) }), "the server reset the call: REFUSED_STREAM"},
		{"stops in the middle", hears(t, func(c net.Conn, in io.Reader) {
			http2.NewFramer(c, nil).WriteSettings()
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, in) // the answer to the settings, which would be a reset's cause
		}), "closed in the middle of the answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reason := strings.ReplaceAll(c.reason, "%d", fmt.Sprint(c.port))
			r := Run(t.Context(), loopback, policy(t, `{"timeout":%q,"grpc":{"port":%d}}`, timeoutFor(c.reason), c.port))
			if reason == "!" { // which bound it meets first is the library's to say
				if r.Outcome != health.Failure || r.Definite || strings.HasPrefix(r.Reason, "timeout") {
					t.Errorf("%+v", r)
				}
				return
			}
			found(t, r, health.Failure, reason)
		})
	}
}

// What a server may do and still be one: interim headers, a message in pieces, unknown fields, its own pings, a graceful GOAWAY.
func TestUnusualGRPC(t *testing.T) {
	port := frames(t, func(_ net.Conn, f *http2.Framer) {
		f.WriteSettingsAck()
		f.WritePing(false, [8]byte{7})
		f.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
		headers(f, false, ":status", "103", "link", "x")
		headers(f, false, ":status", "200", "content-type", "application/grpc+proto")
		m := message(0x12, 3, 'a', 'b', 'c', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x28, 0xac, 2, 8, 2, 8, 1)
		for i := range m {
			f.WriteDataPadded(1, false, m[i:i+1], make([]byte, 9))
		}
		f.WriteWindowUpdate(1, 100)
		headers(f, true, "grpc-status", "0")
	})
	found(t, checkGRPC(t, port, ""), health.Success, "the server is SERVING")
}

// A server sees its connection end in order: it is told, and then there is an end.
func TestGRPCEndsInOrder(t *testing.T) {
	end := make(chan error, 1)
	port := raw(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		io.CopyN(io.Discard, in, int64(len(http2.ClientPreface)))
		f := http2.NewFramer(c, in)
		for {
			got, err := f.ReadFrame()
			if err != nil {
				end <- err
				return
			}
			switch got.Header().Type {
			case http2.FrameData:
				f.WriteSettings()
				headers(f, false, okHead...)
				f.WriteData(1, false, message(8, 1))
				headers(f, true, "grpc-status", "0")
			case http2.FrameGoAway:
				end <- nil
			}
		}
	})
	found(t, checkGRPC(t, port, ""), health.Success, "is SERVING")
	if err := <-end; err != nil {
		t.Errorf("instead of GOAWAY: %v", err)
	}
	if err := <-end; err != io.EOF {
		t.Errorf("after GOAWAY: %v", err)
	}
}

// Go's own HTTP server without h2c, which is what most people who are wrong about a port have.
func TestGRPCAgainstHTTP(t *testing.T) {
	port := raw(t, func(c net.Conn) {
		srv := &http.Server{}
		l := &oneConn{conn: c, done: make(chan struct{})}
		srv.Serve(l)
		<-l.done
	})
	found(t, checkGRPC(t, port, ""), health.Failure, "speaks HTTP/1, not gRPC")
}

// oneConn is a listener of one connection; done is closed with it.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	took bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.took {
		return nil, io.EOF
	}
	l.took = true
	return closing{l.conn, l.done}, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

type closing struct {
	net.Conn
	done chan struct{}
}

func (c closing) Close() error {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	return c.Conn.Close()
}

// FuzzGRPC gives a grpc check an answer of any bytes. It must end, within its bounds, and never panic.
func FuzzGRPC(f *testing.F) {
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	w.WriteSettings()
	headers(w, false, okHead...)
	w.WriteData(1, false, message(8, 1))
	headers(w, true, "grpc-status", "0")
	f.Add(b.Bytes())
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		conn := &canned{in: bytes.NewReader(answer)}
		target := Target{Dial: func(context.Context, uint16) (net.Conn, error) { return conn, nil }}
		r := Run(t.Context(), target, health.Policy{Type: health.TypeGRPC, Timeout: 10 * time.Second, GRPC: &health.GRPCCheck{Port: 1}})
		if r.Outcome == health.Inconclusive || r.Reason == "" {
			t.Errorf("%+v", r)
		}
		if conn.read > maxGRPC+maxDrain || conn.wrote > 4<<10 {
			t.Errorf("read %d and wrote %d bytes", conn.read, conn.wrote)
		}
	})
}

// FuzzHealthResponse reads any bytes as an answer.
func FuzzHealthResponse(f *testing.F) {
	f.Add(message(8, 1))
	f.Add(message(0x12, 1, 'x', 8, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		status, err := healthResponse(b)
		if err != nil && status != 0 {
			t.Errorf("%d with %v", status, err)
		}
	})
}

// canned is a connection whose other end has said everything.
type canned struct {
	net.Conn
	in          io.Reader
	read, wrote int
}

func (c *canned) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	c.read += n
	return n, err
}
func (c *canned) Write(b []byte) (int, error) { c.wrote += len(b); return len(b), nil }
func (c *canned) Close() error                { return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }
func (c *canned) CloseWrite() error           { return nil }
