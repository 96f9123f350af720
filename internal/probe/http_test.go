package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/internal/health"
)

func TestHTTP(t *testing.T) {
	var mux http.ServeMux
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "all systems ready") })
	mux.HandleFunc("/500", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	mux.HandleFunc("/204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(200)
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 64<<10)+"ready")
	})
	mux.HandleFunc("/chunks", func(w http.ResponseWriter, r *http.Request) {
		for _, c := range "ready" { // the text is spread over chunks
			fmt.Fprintf(w, "%c", c)
			w.(http.Flusher).Flush()
		}
	})
	srv := httptest.NewServer(&mux)
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		check   string
		outcome health.Outcome
		reason  string
	}{
		{`"path":"/ok"`, health.Success, "status 200"},
		{`"path":"/ok","method":"HEAD"`, health.Success, "status 200"},
		{`"path":"/ok","method":"POST"`, health.Success, "status 200"},
		{`"path":"/500"`, health.Failure, "status 500, expected 200"},
		{`"path":"/204"`, health.Failure, "status 204, expected 200"},
		{`"path":"/204","expected_status":204`, health.Success, "status 204"},
		{`"path":"/500","expected_statuses":["200-299",404]`, health.Failure, "status 500, expected 200-299 or 404"},
		{`"path":"/204","expected_statuses":["200-299"]`, health.Success, "status 204"},
		{`"path":"/away"`, health.Failure, "status 302, expected 200"},
		{`"path":"/away","expected_status":302`, health.Success, "status 302"},
		{`"path":"/early"`, health.Success, "status 200"},
		{`"path":"/ok","body_contains":"systems"`, health.Success, `contains "systems"`},
		{`"path":"/ok","body_contains":"broken"`, health.Failure, `the body does not contain "broken"`},
		{`"path":"/late","body_contains":"ready"`, health.Failure, "the first 64 KiB of the body do not contain"},
		{`"path":"/late","body_contains":"xxx"`, health.Success, "contains"},
		{`"path":"/chunks","body_contains":"ready"`, health.Success, "contains"},
	} {
		found(t, Run(t.Context(), loopback, policy(t, `{"http":{"port":%d,%s}}`, port, c.check)), c.outcome, c.reason)
	}
}

// The request, to the byte.
func TestRequest(t *testing.T) {
	for check, want := range map[string]string{
		`{"port":80}`: "GET / HTTP/1.1\r\nHost: localhost:80\r\nUser-Agent: hale-probe/1.2.3\r\nAccept: */*\r\nConnection: close\r\n\r\n",
		`{"port":8080,"method":"POST","path":"/a?b=c%20d&é","headers":{"host":"example.org","user-agent":"me","X-Token":"t"}}`: "POST /a?b=c%20d&%C3%A9 HTTP/1.1\r\n" +
			"Host: example.org\r\nAccept: */*\r\nConnection: close\r\nContent-Length: 0\r\nX-Token: t\r\nuser-agent: me\r\n\r\n",
		`{"port":80,"method":"HEAD","headers":{"Accept":"text/plain"}}`: "HEAD / HTTP/1.1\r\nHost: localhost:80\r\nUser-Agent: hale-probe/1.2.3\r\n" +
			"Connection: close\r\nAccept: text/plain\r\n\r\n",
	} {
		// The path is quoted by %s only: JSON escapes are not formats.
		p := policy(t, "%s", `{"http":`+check+`}`)
		if got := string(appendRequest(nil, p.HTTP, "1.2.3")); got != want {
			t.Errorf("%s:\n%q, want\n%q", check, got, want)
		}
	}
}

func TestHTTPS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+r.TLS.ServerName {
			w.WriteHeader(421)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	check := func(rest string) health.Result {
		return Run(t.Context(), loopback, policy(t, `{"http":{"port":%d,"scheme":"https"%s}}`, port, rest))
	}
	found(t, check(`,"path":"/localhost"`), health.Success, "status 200")
	found(t, check(`,"path":"/example.org","headers":{"Host":"example.org:1"}`), health.Success, "status 200")
	found(t, check(`,"path":"/a.test","headers":{"Host":"example.org"},"tls_server_name":"a.test"`), health.Success, "status 200")
	found(t, check(`,"tls_skip_verify":false,"tls_server_name":"example.com"`), health.Failure, "the certificate is refused: ")
	found(t, Run(t.Context(), loopback, policy(t, `{"http":{"port":%d,"scheme":"https"}}`, says(t, "HTTP/1.1 200 OK\r\n\r\n"))),
		health.Failure, "does not speak TLS")
	found(t, Run(t.Context(), loopback, policy(t, `{"http":{"port":%d,"scheme":"https"}}`, raw(t, func(net.Conn) {}))),
		health.Failure, "in the TLS handshake!")
	found(t, Run(t.Context(), loopback, policy(t, `{"http":{"port":%d}}`, port)), health.Failure, "status 400, expected 200")
}

// A handshake that is given up leaves nothing behind that the next probe could stumble over.
func TestHandshakesGivenUp(t *testing.T) {
	port := raw(t, func(c net.Conn) { go io.Copy(io.Discard, c); time.Sleep(time.Millisecond) })
	plain := says(t, "HTTP/1.1 200 OK\r\n\r\n")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				Run(t.Context(), loopback, policy(t, `{"timeout":"1ms","http":{"port":%d,"scheme":"https"}}`, port))
				Run(t.Context(), loopback, policy(t, `{"http":{"port":%d}}`, plain))
			}
		})
	}
	group.Wait()
}

func TestHostileServers(t *testing.T) {
	silent := func(c net.Conn) { io.Copy(io.Discard, c) }
	for _, c := range []struct {
		name   string
		port   int
		check  string // beside the port
		reason string
	}{
		{"never answers", raw(t, silent), `"path":"/healthz"`, "timeout after 300ms: no answer to GET /healthz"},
		{"closes", raw(t, func(c net.Conn) { http.ReadRequest(bufio.NewReader(c)) }), `"path":"/"`, "closed before the first byte (port %d)!"},
		{"resets", raw(t, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			c.(*net.TCPConn).SetLinger(0)
		}), `"path":"/"`, "connection reset before the first byte (port %d)!"},
		{"stops in the middle of the head", says(t, "HTTP/1.1 200 OK\r\nServer: x"), `"path":"/"`, "closed in the middle of the answer"},
		{"hangs in the middle of the head", raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nServer: x")
			silent(c)
		}), `"path":"/"`, "timeout after 300ms: the answer to GET / is not complete"},
		{"hangs in the middle of the first line", raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.")
			silent(c)
		}), `"path":"/"`, "timeout after 300ms: the answer to GET / is not complete"},
		{"headers without end", raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X-Junk: junkjunkjunkjunkjunkjunkjunkjunkjunk\r\n"); err != nil {
					return
				}
			}
		}), `"path":"/"`, "more than 64 KiB of headers"},
		{"one header without end", raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX: ")
			endless(c)
		}), `"path":"/"`, "more than 64 KiB of headers"},
		{"interim answers without end", raw(t, func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
					return
				}
			}
		}), `"path":"/"`, "more than 64 KiB of headers"},
		{"garbage", says(t, "\x00\xff\x1b[31mgarbage\r\n\r\n"), `"path":"/"`, "not an HTTP answer: "},
		{"garbage without end", raw(t, endless), `"path":"/"`, "more than 64 KiB of headers"},
		{"a status out of range", says(t, "HTTP/1.1 999 Odd\r\n\r\n"), `"path":"/"`, "status 999, expected 200"},
		{"a body that ends early", says(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), `"body_contains":"x"`, "the body ends early"},
		{"a body that hangs", raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nabc")
			silent(c)
		}), `"body_contains":"x"`, `timeout after 300ms: the body does not contain "x" so far`},
		{"chunks of overhead", raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for {
				if _, err := io.WriteString(c, "1;"+strings.Repeat("e", 2000)+"\r\nx\r\n"); err != nil {
					return
				}
			}
		}), `"body_contains":"y"`, "the body ends early"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reason := c.reason
			if strings.Contains(reason, "%d") {
				reason = fmt.Sprintf(reason, c.port)
			}
			found(t, Run(t.Context(), loopback, policy(t, `{"timeout":%q,"http":{"port":%d,%s}}`, timeoutFor(reason), c.port, c.check)), health.Failure, reason)
		})
	}
}

// endless sends the letter x until the other end has had enough.
func endless(c net.Conn) {
	junk := []byte(strings.Repeat("x", 64<<10))
	for {
		if _, err := c.Write(junk); err != nil {
			return
		}
	}
}

// The verdict does not wait for a body that goes on and on; the connection ends within 64 KiB or 100 ms, and a stream is reset.
func TestDrain(t *testing.T) {
	got := make(chan error, 1)
	port := raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
		endless(c)
		_, err := c.Read(make([]byte, 1))
		got <- err
	})
	start := time.Now()
	r := Run(t.Context(), loopback, policy(t, `{"http":{"port":%d}}`, port))
	found(t, r, health.Success, "status 200")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && err != io.EOF {
		t.Errorf("the server's end saw %v", err)
	}

	// A server that closes by itself sees an orderly end.
	port = raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+strings.Repeat("x", 32<<10))
		c.(*net.TCPConn).CloseWrite()
		_, err := c.Read(make([]byte, 1))
		got <- err
	})
	found(t, Run(t.Context(), loopback, policy(t, `{"http":{"port":%d}}`, port)), health.Success, "status 200")
	if err := <-got; err != io.EOF {
		t.Errorf("the server saw %v, want EOF", err)
	}
}

// A server that refuses a request before it has read it is heard all the same.
func TestAnswerBeforeRequest(t *testing.T) {
	port := raw(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	found(t, Run(t.Context(), loopback, policy(t, `{"http":{"port":%d}}`, port)), health.Failure, "status 503, expected 200")
}

func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\n\r\nready")
	f.Add("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 204 No\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nready\r\n0\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")
	p := policy(f, `{"http":{"port":80,"body_contains":"ready"}}`)
	f.Fuzz(func(t *testing.T, answer string) {
		target := Target{Dial: func(context.Context, uint16) (net.Conn, error) { return &script{r: strings.NewReader(answer)}, nil }}
		r := Run(context.Background(), target, p)
		if r.Outcome != health.Success && r.Outcome != health.Failure || r.Reason == "" {
			t.Fatalf("%q: %+v", answer, r)
		}
		if r.Outcome == health.Success && !strings.Contains(answer, "200") {
			t.Fatalf("%q: a success", answer)
		}
	})
}

// What the short way through the head of an answer says, net/http says too.
func FuzzPlain(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\n\r\nready", "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 3\r\nX_y:\tz \r\n\r\nok\n",
		"HTTP/1.1 204 No\r\ncontent-length:5\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: odd\r\n\r\n", "HTTP/1.1 000 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	} {
		f.Add(answer)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		status, _ := parsePlain([]byte(answer))
		if status == 0 {
			return
		}
		for _, method := range []string{"GET", "HEAD"} {
			r, err := readAnswer(bufio.NewReader(strings.NewReader(answer)), method)
			if err != nil || r.StatusCode != status {
				t.Fatalf("%q: status %d, but net/http says %v, %v", answer, status, r, err)
			}
		}
		// It comes to the same however the bytes are cut.
		for n := range answer {
			if s, more := parsePlain([]byte(answer[:n])); s != status && !(s == 0 && more) {
				t.Fatalf("%q: status %d, more %v after %d bytes; %d after all", answer, s, more, n, status)
			}
		}
	})
}

// A script is a connection whose other end says what it was told to.
type script struct {
	net.Conn
	r io.Reader
}

func (s *script) Read(b []byte) (int, error)  { return s.r.Read(b) }
func (s *script) Write(b []byte) (int, error) { return len(b), nil }
func (s *script) Close() error                { return nil }
func (s *script) SetDeadline(time.Time) error { return nil }

func BenchmarkHTTP(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go srv.Serve(l)
	defer srv.Close()
	p := policy(b, `{"http":{"port":%d}}`, l.Addr().(*net.TCPAddr).Port)
	b.ReportAllocs()
	for b.Loop() {
		if r := Run(b.Context(), loopback, p); r.Outcome != health.Success {
			b.Fatal(r)
		}
	}
}
