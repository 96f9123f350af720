package main

import (
	"fmt"
	"net"
	"net/http"
	"sync"
)

// toggle serves HTTP at an address, and there takes orders to serve at others, too, and to cease: toggle :81
//
//	POST /listen?at=:80   it listens when this is answered
//	POST /cease?at=:80    nobody listens any more when this is answered
func toggle(args []string) error {
	var mu sync.Mutex
	listeners := map[string]net.Listener{}
	http.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	http.HandleFunc("POST /listen", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		at := r.FormValue("at")
		ln, err := net.Listen("tcp", at)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		listeners[at] = ln
		go http.Serve(ln, nil)
	})
	http.HandleFunc("POST /cease", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		at := r.FormValue("at")
		ln := listeners[at]
		if ln == nil {
			http.Error(w, "it does not listen there", http.StatusConflict)
			return
		}
		ln.Close()
		delete(listeners, at)
	})
	return http.ListenAndServe(args[0], nil)
}
