// Command guest is the program inside the benches' machines, and what they are compared with: static, and it does what
// its first argument says. As the first process of a machine (QEMU's own user network is measured with it) it makes that
// machine ready first.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/halevm/hale/bench/transfer"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if os.Getpid() == 1 && len(args) == 0 {
		if err := becomeInit(); err != nil {
			fmt.Println("guest:", err)
		}
		args = []string{"serve"}
	}
	switch {
	case len(args) == 1 && args[0] == "serve": // HTTP at port 80, and transfers
		return serve()
	case len(args) == 1 && args[0] == "toggle": // HTTP at port 80 when port 81 says so
		return toggle()
	case len(args) == 2 && args[0] == "transfers": // at an address of the host, above the ports of the system
		return transfers(args[1])
	case len(args) == 3 && (args[0] == "fetch" || args[0] == "send"): // ADDRESS DURATION, and prints the rate
		return measure(args[0], args[1], args[2])
	case len(args) == 1 && args[0] == "idle": // what a process of Go costs that does nothing
		fmt.Println("here")
		untilEnd()
		return nil
	}
	return fmt.Errorf("no such command: %q", args)
}

func serve() error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	go func() { <-c; os.Exit(0) }()
	failed := make(chan error, 2)
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	go func() { failed <- http.ListenAndServe(":80", nil) }()
	go func() { failed <- transfer.Serve("", 0, func() {}) }()
	return <-failed
}

// transfers serves until whoever started it is gone.
func transfers(addr string) error {
	failed := make(chan error, 2)
	go func() {
		failed <- transfer.Serve(addr, transfer.HostOffset, func() { fmt.Println("here") })
	}()
	go func() { untilEnd(); failed <- nil }()
	return <-failed
}

// untilEnd returns when nobody holds the other end of standard input.
func untilEnd() { io.Copy(io.Discard, os.Stdin) }

func measure(what, addr, duration string) error {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	do := transfer.Fetch
	if what == "send" {
		do = transfer.Send
	}
	rate, err := do(addr, d)
	if err != nil {
		return err
	}
	fmt.Printf("%.0f\n", rate)
	return nil
}
