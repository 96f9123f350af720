package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/halevm/hale/test/e2e/numbered"
)

// carry serves a numbered stream (GET /bytes?n=SIZE) and keeps a connection to the outside, to an echo, by which another goes and comes
// back: carry ADDR ECHO. GET /carried says how far that is; POST /finish ends it, and says how much came back, and that it was right.
func carry(args []string) error {
	c, err := net.Dial("tcp", args[1])
	if err != nil {
		return err
	}
	var back numbered.Checker
	var carried atomic.Int64
	var finish atomic.Bool
	ended := make(chan error, 1)
	go func() {
		in := numbered.NewReader(1 << 62)
		b := make([]byte, 64<<10)
		for !finish.Load() {
			n, _ := in.Read(b)
			if _, err := c.Write(b[:n]); err != nil {
				fmt.Println("carry:", err)
				return // who reads is told as well
			}
			time.Sleep(5 * time.Millisecond)
		}
		c.(*net.TCPConn).CloseWrite()
	}()
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if _, wrong := back.Write(b[:n]); wrong != nil {
				err = wrong
			}
			carried.Store(back.Checked())
			if err == io.EOF && finish.Load() {
				ended <- nil
				return
			}
			if err != nil {
				fmt.Println("carry:", err)
				ended <- err
				return
			}
		}
	}()
	http.HandleFunc("GET /bytes", func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		io.Copy(w, numbered.NewReader(size))
	})
	http.HandleFunc("GET /carried", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, carried.Load()) })
	http.HandleFunc("POST /finish", func(w http.ResponseWriter, r *http.Request) { // once
		finish.Store(true)
		if err := <-ended; err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, carried.Load())
	})
	return serve(args[:1])
}

// pour writes to its output as fast as it can, and says at an address how much that was: pour ADDR
func pour(args []string) error {
	var poured atomic.Int64
	go func() {
		line := make([]byte, 32<<10)
		for i := range line {
			line[i] = "the quick brown fox jumps over the lazy dog 0123456789 and again\n"[i%65]
		}
		for {
			n, err := os.Stdout.Write(line)
			poured.Add(int64(n))
			if err != nil {
				os.Exit(1)
			}
		}
	}()
	http.HandleFunc("GET /poured", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, poured.Load()) })
	return http.ListenAndServe(args[0], nil)
}
