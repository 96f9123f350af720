package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// web is what health checks over the network are asked of: HTTP at :80, https with a certificate that nobody has signed at :443, gRPC
// at :50051, a listener at 127.0.0.1:82, and one at :83 that counts who comes.
func web([]string) error {
	var contacts atomic.Int64
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	http.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("to"), http.StatusFound)
	})
	http.HandleFunc("/contacts", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, contacts.Load()) })
	http.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		chunk := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
		for range 1 << 10 { // 64 MiB
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		io.WriteString(w, "needle")
	})
	http.HandleFunc("/asked", func(w http.ResponseWriter, r *http.Request) { // 204 for exactly this
		if r.Method != "POST" || r.URL.RawQuery != "a=b%20c&d=%C3%A9" || r.Header.Get("X-Token") != "t" || r.Host != "example.org" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	http.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Hour) })
	http.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(300 * time.Millisecond)
		os.Exit(0)
	})
	http.HandleFunc("/grpc.health.v1.Health/Check", grpcHealth)

	cert, err := selfSigned()
	if err != nil {
		return err
	}
	counting, err := net.Listen("tcp", ":83")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := counting.Accept()
			if err != nil {
				return
			}
			contacts.Add(1)
			c.Close()
		}
	}()
	if _, err := net.Listen("tcp", "127.0.0.1:82"); err != nil {
		return err
	}
	secure := &http.Server{Addr: ":443", TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	rpc := &http.Server{Addr: ":50051", Protocols: new(http.Protocols)}
	rpc.Protocols.SetUnencryptedHTTP2(true)
	failed := make(chan error)
	go func() { failed <- secure.ListenAndServeTLS("", "") }()
	go func() { failed <- rpc.ListenAndServe() }()
	go func() { failed <- http.ListenAndServe(":80", nil) }()
	return <-failed
}

// grpcHealth is grpc.health.v1, by hand: the service "" is SERVING, "db" is NOT_SERVING, and there is no other.
func grpcHealth(w http.ResponseWriter, r *http.Request) {
	request, err := io.ReadAll(io.LimitReader(r.Body, 1<<10))
	if err != nil || r.ProtoMajor != 2 || r.Header.Get("Content-Type") != "application/grpc" || len(request) < 5 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	switch string(request[5:]) {
	case "":
		w.Write([]byte{0, 0, 0, 0, 2, 8, 1})
	case "\x0a\x02db":
		w.Write([]byte{0, 0, 0, 0, 2, 8, 2})
	default:
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
		return
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// abandon ends at once and leaves a process behind that it is no parent of, in a session of its own, with its output open.
func abandon(args []string) error {
	attr := &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	child := []string{"/workload", "abandon", "between"}
	if len(args) > 0 {
		child = []string{"/workload", "linger", "child"}
	}
	_, err := syscall.ForkExec("/workload", child, attr)
	return err
}

// processes counts those that were started as this.
func processes(args []string) error {
	want, n := strings.Join(args, "\x00")+"\x00", 0
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && string(b) == want {
			n++
		}
	}
	fmt.Println(n)
	return nil
}
