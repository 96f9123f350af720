package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/registry/registrytest"
	"github.com/halevm/hale/internal/server"
	"github.com/halevm/hale/internal/token"
)

// pipes is a listener whose connections are pipes, so that a bubble decides what time it is for their deadlines.
type pipes struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { p.close(); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// overPipes runs a test in a bubble; say sends what a client says over a connection of its own, and the test reads on from there.
func overPipes(t *testing.T, test func(t *testing.T, w *world, say func(string) *bufio.Reader), edit ...func(*server.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, handler := newHandler(t, registrytest.New(t).Client(), edit...)
		p := pipes{conns: make(chan net.Conn)}
		p.closed, p.close = context.WithCancel(t.Context())
		srv := &http.Server{Handler: handler}
		go srv.Serve(p)
		defer srv.Close()
		test(t, w, func(text string) *bufio.Reader {
			here, there := net.Pipe()
			t.Cleanup(func() { here.Close() })
			p.conns <- there
			go io.WriteString(here, text)
			return bufio.NewReader(here)
		})
	})
}

// A body that does not come whole is refused when its time is over, and the connection with it.
func TestBodyThatStops(t *testing.T) {
	overPipes(t, func(t *testing.T, w *world, say func(string) *bufio.Reader) {
		auth := "Host: x\r\nAuthorization: Bearer " + w.bearer + "\r\n"
		for _, c := range []struct {
			what, text string
			status     int
			after      time.Duration
			says       string
		}{
			{"a length", "POST /instances HTTP/1.1\r\n" + auth + "Content-Length: 1000\r\n\r\n{", 400, 30 * time.Second, "within 30s"},
			{"chunks", "POST /instances HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 400, 30 * time.Second, "within 30s"},
			{"too long", "POST /instances HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n100001\r\n" + strings.Repeat("x", 1<<20+1), 413, 30 * time.Second, "1048576"},
			{"nobody's", "GET /instances HTTP/1.1\r\n" + auth + "Content-Length: 1000\r\n\r\n{", 200, 30 * time.Second, "[]"},
			{"an import that is too long", "POST /images/import HTTP/1.1\r\n" + auth + "Content-Length: 34359738369\r\nExpect: 100-continue\r\n\r\n", 413, 0, "34359738368"},
			{"an import", "POST /images/import HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 400, 65 * time.Second, "for 1m0s"},
			{"an import in broken chunks", "POST /images/import HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno length\r\n", 400, 5 * time.Second, "broke off"},
		} {
			start := time.Now()
			in := say(c.text)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
				continue
			}
			body, _ := io.ReadAll(resp.Body)
			if took := time.Since(start); resp.StatusCode != c.status || took > c.after || !strings.Contains(string(body), c.says) {
				t.Errorf("%s: %d after %v: %s", c.what, resp.StatusCode, took, body)
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("%s: the connection stays: %v", c.what, err)
			}
		}
	})
}

// Who asks for the headers of a stream gets them, and the next answer on that connection.
func TestHeadOfStreams(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(9 * time.Second)) // before a heartbeat
	in := bufio.NewReader(conn)
	for _, path := range []string{"/events", "/instances/web/logs?follow=true", "/instances/web/wait?state=Stopped", "/instances/web"} {
		fmt.Fprintf(conn, "HEAD %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, w.bearer)
		resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodHead})
		if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") == "" {
			t.Fatalf("%s: %+v, %v", path, resp, err)
		}
	}
}

// Somebody who takes no answer is not waited for without end, and a stranger's body is not waited for at all.
func TestAnswersThatNobodyTakes(t *testing.T) {
	overPipes(t, func(t *testing.T, w *world, say func(string) *bufio.Reader) {
		for _, path := range []string{"/openapi.json", "/openapi.yaml", "/docs", "/health", "/metrics", "/instances"} {
			in := say("GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.bearer + "\r\n\r\n")
			time.Sleep(46 * time.Second)
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("%s: the connection stays: %v", path, err)
			}
		}
		start := time.Now()
		in := say("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusOK || time.Since(start) > 0 {
			t.Errorf("%+v, %v after %v", resp, err, time.Since(start))
		}
	})
}

// A new secret ends also what its predecessor's tokens had begun; that a token runs out does not.
func TestStreamsEndWithTheirToken(t *testing.T) {
	overPipes(t, func(t *testing.T, w *world, say func(string) *bufio.Reader) {
		resp, err := http.ReadResponse(say("GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+w.bearer+"\r\n\r\n"), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%+v, %v", resp, err)
		}
		in := bufio.NewReader(resp.Body)
		for start := time.Now(); time.Since(start) < 2*time.Hour; { // the token was good for one
			if _, err := in.ReadByte(); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
		}
		if _, err := token.Rotate(w.dir); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for err == nil && time.Since(start) < time.Minute {
			_, err = in.ReadByte()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || time.Since(start) > 10*time.Second {
			t.Errorf("it ends after %v with %v", time.Since(start), err)
		}
	})
}
