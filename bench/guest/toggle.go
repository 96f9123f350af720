package main

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
)

// toggle serves port 80 when it is told to, and no more when it is told so, or hangs, by HTTP at port 81. Its answer leaves the guest right after the
// listen(2), or the close(2): whoever gave the order knows by it when that was.
func toggle() error {
	var ln net.Listener // the one connection that orders come by has one goroutine
	var hangs atomic.Bool
	site := http.NewServeMux()
	site.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-r.Context().Done() // who asked has gone
			return
		}
		fmt.Fprintln(w, "hello")
	})
	orders := http.NewServeMux()
	orders.HandleFunc("POST /listen", func(w http.ResponseWriter, _ *http.Request) {
		next, err := net.Listen("tcp", ":80")
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		ln = next
		go http.Serve(ln, site)
	})
	orders.HandleFunc("POST /cease", func(w http.ResponseWriter, _ *http.Request) {
		if ln == nil {
			http.Error(w, "nobody listens", http.StatusConflict)
			return
		}
		ln.Close()
		ln = nil
	})
	orders.HandleFunc("POST /hang", func(http.ResponseWriter, *http.Request) { hangs.Store(true) })
	return http.ListenAndServe(":81", orders)
}
