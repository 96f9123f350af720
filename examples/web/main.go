// Command web is the program that hale's first steps run in a machine: a small HTTP server on port 80 that can be
// broken and mended from outside, so that one can watch what hale says of it.
//
//	GET  /         one line with the machine's host name
//	GET  /healthz  200 "ok", or 500 "broken on purpose"
//	POST /break    from now on /healthz fails
//	POST /mend     from now on /healthz succeeds
//
// `web uname` prints the kernel's release, the host name and the uptime in one line, for a look inside.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const address = ":80"

func main() {
	log.SetFlags(0)
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 0:
		err = serve()
	case len(args) == 1 && args[0] == "uname":
		err = uname()
	default:
		err = fmt.Errorf("usage: %s [uname]", os.Args[0])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve returns as soon as it is told to stop: there is nothing here that would be worth finishing.
func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	log.Printf("listening on %s", address)
	srv := &http.Server{Handler: handler(log.Printf), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler(logf func(string, ...any)) http.Handler {
	var broken atomic.Bool
	set := func(v bool, what string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			broken.Store(v)
			logf("%s", what)
			fmt.Fprintln(w, what)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		name, err := os.Hostname()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "hello from %s\n", name)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			http.Error(w, "broken on purpose", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /break", set(true, "broken"))
	mux.HandleFunc("POST /mend", set(false, "mended"))
	return mux
}

func uname() error {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return err
	}
	fmt.Printf("Linux %s on %s, up %s\n", release[:len(release)-1], name, time.Duration(info.Uptime)*time.Second)
	return nil
}
