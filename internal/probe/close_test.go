package probe

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/halevm/hale/internal/health"
)

// ending is a connection that counts its end.
type ending struct {
	net.Conn
	closed *atomic.Int64
}

func (c ending) Close() error { c.closed.Add(1); return c.Conn.Close() }

// Whatever becomes of a probe, when it has returned its connection is closed.
func TestEveryConnectionIsClosed(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	silent := func() int { return raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }) }
	var opened, closed atomic.Int64
	target := loopback
	target.Dial = func(ctx context.Context, port uint16) (net.Conn, error) {
		conn, err := loopback.Dial(ctx, port)
		if err != nil {
			return nil, err
		}
		opened.Add(1)
		t.Cleanup(func() { conn.Close() }) // no server is to wait for what a probe has left open
		return ending{conn, &closed}, nil
	}
	for name, c := range map[string]struct {
		port  int
		check string
	}{ // those without an answer take all their time
		"tcp":                            {raw(t, func(net.Conn) {}), `"tcp":{"port":%d}`},
		"http":                           {says(t, "HTTP/1.1 200 OK\r\n\r\nwell"), `"http":{"port":%d}`},
		"http, another status":           {says(t, "HTTP/1.1 500 No\r\n\r\n"), `"http":{"port":%d}`},
		"http, its body":                 {says(t, "HTTP/1.1 200 OK\r\n\r\nwell"), `"http":{"port":%d,"body_contains":"x"}`},
		"http, garbage":                  {says(t, "\x00\xff\r\n\r\n"), `"http":{"port":%d}`},
		"http, no answer":                {silent(), `"http":{"port":%d}`},
		"https":                          {secure.Listener.Addr().(*net.TCPAddr).Port, `"http":{"port":%d,"scheme":"https"}`},
		"https, no trust":                {secure.Listener.Addr().(*net.TCPAddr).Port, `"http":{"port":%d,"scheme":"https","tls_skip_verify":false}`},
		"https, no handshake":            {silent(), `"http":{"port":%d,"scheme":"https"}`},
		"grpc, an answer of another age": {says(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), `"grpc":{"port":%d}`},
		"grpc, no answer":                {silent(), `"grpc":{"port":%d}`},
	} {
		opened.Store(0)
		closed.Store(0)
		timeout := "1m"
		if strings.Contains(name, ", no ") && !strings.HasSuffix(name, "trust") {
			timeout = "500ms"
		}
		Run(t.Context(), target, policy(t, `{"timeout":%q,`+c.check+`}`, timeout, c.port))
		if opened.Load() != 1 || closed.Load() == 0 {
			t.Errorf("%s: %d opened, closed %d times", name, opened.Load(), closed.Load())
		}
	}
	// And when nobody wants to know any more.
	ctx, cancel := context.WithCancelCause(t.Context())
	hangs := raw(t, func(conn net.Conn) {
		http.ReadRequest(bufio.NewReader(conn))
		cancel(errors.New("the instance stopped"))
		io.Copy(io.Discard, conn)
	})
	opened.Store(0)
	closed.Store(0)
	r := Run(ctx, target, policy(t, `{"timeout":"1h","http":{"port":%d}}`, hangs))
	if r.Cause != health.CauseCutShort || opened.Load() != 1 || closed.Load() == 0 {
		t.Errorf("cut short: %+v, %d opened, closed %d times", r, opened.Load(), closed.Load())
	}
}
