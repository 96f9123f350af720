package network

import (
	"io"
	"net"
	"net/http"
	"sort"
	"testing"
	"time"
)

func BenchmarkDialGet(b *testing.B) {
	s, g := pair(b, testConfig())
	ln := g.listen(80)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })
	took := make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		start := time.Now()
		if get(b, s, 80) != "ok" {
			b.Fatal("not ok")
		}
		took = append(took, time.Since(start))
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
}

// BenchmarkDialGetBesideBulk is the probe of a machine that someone downloads from and uploads to as fast as it goes.
func BenchmarkDialGetBesideBulk(b *testing.B) {
	s, g := pair(b, testConfig())
	g.serve(9, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() })
	addr := publish(b, s, 9)
	for range 4 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		go io.Copy(c, endless{})
	}
	ln := g.listen(80)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })
	var worst time.Duration
	for b.Loop() {
		start := time.Now()
		get(b, s, 80)
		worst = max(worst, time.Since(start))
	}
	b.ReportMetric(float64(worst.Microseconds()), "max-µs")
	b.ReportMetric(float64(s.Counters().Lost), "lost")
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func BenchmarkPublish(b *testing.B) {
	for _, way := range []string{"in", "out"} {
		b.Run(way, func(b *testing.B) {
			s, g := pair(b, testConfig())
			g.serve(80, func(c net.Conn) {
				if way == "in" {
					io.Copy(io.Discard, c)
				} else {
					io.Copy(c, endless{})
				}
				c.Close()
			})
			c, err := net.Dial("tcp", publish(b, s, 80))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			chunk := make([]byte, 1<<20)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if way == "in" {
					_, err = c.Write(chunk)
				} else {
					_, err = io.ReadFull(c, chunk)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(s.Counters().Lost), "lost")
		})
	}
}

// BenchmarkOutbound is one connection of the guest's to the outside, as fast as it goes: "up" from the guest, "down" to it.
func BenchmarkOutbound(b *testing.B) {
	for _, way := range []string{"up", "down"} {
		b.Run(way, func(b *testing.B) {
			var w world
			s, g := pair(b, w.config())
			addr, _ := outsideTCP(b, func(c *net.TCPConn) {
				if way == "up" {
					io.Copy(io.Discard, c)
				} else {
					io.Copy(c, endless{})
				}
				c.Close()
			})
			c := g.mustConnect(addr)
			c.SetDeadline(time.Time{})
			chunk := make([]byte, 1<<20)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				var err error
				if way == "up" {
					_, err = c.Write(chunk)
				} else {
					_, err = io.ReadFull(c, chunk)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(s.Counters().Lost), "lost")
		})
	}
}

// BenchmarkOutboundDatagram is one datagram to the outside and back.
func BenchmarkOutboundDatagram(b *testing.B) {
	var w world
	_, g := pair(b, w.config())
	addr, _ := outsideUDP(b)
	c := g.socket(addr)
	c.SetDeadline(time.Time{})
	text, buf := make([]byte, 1200), make([]byte, 2048)
	for b.Loop() {
		if _, err := c.Write(text); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
