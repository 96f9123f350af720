// Command workload is the program inside the machines of the end-to-end tests: static, and it does what its first
// argument says.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var commands = map[string]func(args []string) error{
	"serve":     serve,
	"web":       web,
	"abandon":   abandon,
	"processes": processes,
	"toggle":    toggle,
	"listen":    listen,
	"sleep":     sleep,
	"deaf":      deaf,
	"exit":      exit,
	"print":     print,
	"panic":     panicKernel,
	"write":     write,
	"fill":      fill,
	"read":      read,
	"exists":    exists,
	"linger":    linger,
	"spew":      spew,
	"env":       env,
	"id":        id,
	"cat":       cat,
	"dial":      dial,
	"count":     count,

	"exchange": exchange,
	"talk":     talk,
	"many":     many,
	"move":     move,
	"flood":    flood,
	"resolve":  resolve,
	"hold":     hold,
	"pipe":     pipe,
	"outside":  outside,
	"carry":    carry,
	"pour":     pour,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "workload: no such command")
		os.Exit(64)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

// serve answers HTTP at an address until SIGTERM, which it obeys at once.
func serve(args []string) error {
	go func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		<-c
		fmt.Println("stopping")
		os.Exit(0)
	}()
	var broken atomic.Bool
	http.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
		}
	})
	http.HandleFunc("POST /break", func(w http.ResponseWriter, r *http.Request) { broken.Store(true) })
	http.HandleFunc("POST /mend", func(w http.ResponseWriter, r *http.Request) { broken.Store(false) })
	// An exec would end with the agent that runs it; this program does not.
	http.HandleFunc("POST /agent-away", func(w http.ResponseWriter, r *http.Request) {
		go cycleAgent(30 * time.Second)
	})
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("serving at", args[0])
	return http.Serve(ln, nil)
}

// listen accepts connections and says nothing.
func listen(args []string) error {
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		c.Close()
	}
}

func sleep([]string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
	return nil
}

// deaf does not end when it is asked to.
func deaf([]string) error {
	signal.Ignore(syscall.SIGTERM)
	fmt.Println("deaf")
	for {
		time.Sleep(time.Hour)
	}
}

func exit(args []string) error {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fmt.Println("exiting with", code)
	os.Exit(code)
	return nil
}

func print(args []string) error {
	fmt.Println(strings.Join(args, " "))
	return nil
}

// panicKernel crashes the guest's kernel.
func panicKernel([]string) error {
	time.Sleep(200 * time.Millisecond)
	return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
}

func write(args []string) error {
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	if _, err := f.WriteString(args[1]); err != nil {
		return err
	}
	return f.Close()
}

// fill writes so many MiB to a file, and returns when they are on the disk.
func fill(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	mib := make([]byte, 1<<20)
	for i := range mib {
		mib[i] = byte(i * i) // not zeros, which no disk needs to keep
	}
	for range n {
		if _, err := f.Write(mib); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	fmt.Println("wrote", n, "MiB")
	return f.Close()
}

func read(args []string) error {
	b, err := os.ReadFile(args[0])
	os.Stdout.Write(b)
	return err
}

func exists(args []string) error {
	_, err := os.Stat(args[0])
	return err
}

// linger leaves a child in a session of its own, with its output open, and waits for longer than any check may take.
func linger(args []string) error {
	if len(args) > 0 {
		time.Sleep(time.Hour)
	}
	_, err := syscall.ForkExec("/workload", []string{"/workload", "linger", "child"}, &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}

func env([]string) error {
	for _, e := range os.Environ() {
		fmt.Println(e)
	}
	wd, err := os.Getwd()
	fmt.Println("PWD_IS=" + wd)
	host, _ := os.Hostname()
	fmt.Println("HOST_IS=" + host)
	return err
}

func id([]string) error {
	groups, err := os.Getgroups()
	fmt.Println(os.Getuid(), os.Getgid(), groups)
	return err
}

func cat([]string) error {
	_, err := os.Stdout.ReadFrom(os.Stdin)
	return err
}

// count prints how many processes run with these arguments.
func count(args []string) error {
	want := strings.Join(append([]string{"/workload"}, args...), "\x00") + "\x00"
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	n := 0
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && string(b) == want {
			n++
		}
	}
	fmt.Println(n)
	return err
}

// dial says what becomes of a connection to the outside.
func dial(args []string) error {
	c, err := net.DialTimeout("tcp", args[0], 5*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// bindAgent takes the driver away from the agent's ports, or gives it back.
func bindAgent(what string) error {
	device, err := agentDevice()
	if err != nil {
		return err
	}
	return os.WriteFile("/sys/bus/virtio/drivers/virtio_console/"+what, []byte(device), 0)
}

const remembered = "/agent-device"

// agentDevice is the virtio device with the agent's ports; while no driver is bound to it, it is the one that was.
func agentDevice() (string, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil || strings.TrimSpace(string(b)) != "hale.control" {
			continue
		}
		link, err := os.Readlink(filepath.Join(filepath.Dir(n), "device"))
		if err != nil {
			return "", err
		}
		device := filepath.Base(link)
		return device, os.WriteFile(remembered, []byte(device), 0o600)
	}
	b, err := os.ReadFile(remembered)
	return string(b), err
}

// cycleAgent takes the ports away for a while.
func cycleAgent(away time.Duration) {
	err := bindAgent("unbind")
	if err == nil {
		time.Sleep(away)
		err = bindAgent("bind")
	}
	fmt.Println("the agent's ports were away:", err)
}
