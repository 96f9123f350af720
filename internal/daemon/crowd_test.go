package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Connections that are held and not used go first; one that is in use by somebody with a token stays, and newcomers are served.
func TestCrowd(t *testing.T) {
	c := newCrowd()
	c.most = 10
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			c.admit(r.Context())
			once.Do(func() { close(busy) })
			<-release
		}
		fmt.Fprint(w, "served")
	}))
	srv.Config.ConnState, srv.Config.ConnContext = c.changed, c.remember
	srv.Start()
	defer srv.Close()
	ask := func(path string) string {
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get(srv.URL + path)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	answer := make(chan string, 1)
	go func() { answer <- ask("/busy") }()
	<-busy
	for range 100 {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\n") // and never its end
	}
	if got := ask("/"); got != "served" {
		t.Errorf("a newcomer: %s", got)
	}
	close(release)
	if got := <-answer; got != "served" {
		t.Errorf("the one in use: %s", got)
	}
	// Whoever was pushed out is gone.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		all := c.all
		c.mu.Unlock()
		if all <= c.most {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left", all)
		}
	}
}

// A stranger's connection goes also while it is in use: it is the answer to a stranger that nobody takes.
func TestStrangersGoFirst(t *testing.T) {
	c := newCrowd()
	c.most = 2
	come := func() (here, there net.Conn) {
		here, there = net.Pipe()
		t.Cleanup(func() { here.Close() })
		c.changed(there, http.StateNew)
		c.changed(there, http.StateActive)
		return here, there
	}
	there := func(conn net.Conn) bool {
		conn.SetReadDeadline(time.Now())
		_, err := conn.Read(make([]byte, 1))
		return err != io.EOF
	}
	guest, theirs := come()
	c.admit(c.remember(context.Background(), theirs))
	first, _ := come()
	second, ours := come()
	if !there(guest) || there(first) || !there(second) {
		t.Errorf("of a guest and two strangers, of whom the first is to go, there are %v, %v, %v", there(guest), there(first), there(second))
	}
	c.admit(c.remember(context.Background(), ours)) // once it idles it goes again
	c.changed(theirs, http.StateIdle)
	if come(); there(guest) || !there(second) {
		t.Errorf("of one who idles and one who does not there are %v, %v", there(guest), there(second))
	}
	c.changed(theirs, http.StateClosed)
	c.admit(c.remember(context.Background(), theirs))
	if len(c.in) != 1 || len(c.at) != 1 {
		t.Errorf("%d are in, and %d may go: who went is remembered", len(c.in), len(c.at))
	}
}
