package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Connections that are held and not used go first; one that is in use stays, and newcomers are served.
func TestCrowd(t *testing.T) {
	c := newCrowd()
	c.most = 10
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			once.Do(func() { close(busy) })
			<-release
		}
		fmt.Fprint(w, "served")
	}))
	srv.Config.ConnState = c.changed
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
