package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// exchange sends a text by tcp or udp and prints what comes back: exchange tcp ADDR TEXT
func exchange(args []string) error {
	c, err := net.DialTimeout(args[0], args[1], 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, args[2]); err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	fmt.Println(string(b[:n]))
	return err
}

// talk keeps one connection, and ends when an echo is missing.
func talk(args []string) error {
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	echo := bufio.NewReader(c)
	for i := 0; ; i++ {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		said := fmt.Sprintln("echo", i)
		if _, err := io.WriteString(c, said); err != nil {
			return err
		}
		if got, err := echo.ReadString('\n'); err != nil || got != said {
			return fmt.Errorf("%q came back for %q: %w", got, said, err)
		}
		fmt.Print(said)
		time.Sleep(200 * time.Millisecond)
	}
}

// many begins connections, holds those that it gets, writes to each as much as it takes, and says every second what there is:
// many ADDR N SECONDS
func many(args []string) error {
	n, _ := strconv.Atoi(args[1])
	seconds, _ := strconv.Atoi(args[2])
	var open, refused, failed, written atomic.Int64
	next := make(chan struct{}, n)
	for range n {
		next <- struct{}{}
	}
	close(next)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 2048 {
		wg.Go(func() {
			for range next {
				c, err := new(net.Dialer).DialContext(ctx, "tcp", args[0])
				switch {
				case errors.Is(err, syscall.ECONNREFUSED):
					refused.Add(1)
					continue
				case err != nil:
					failed.Add(1)
					continue
				}
				open.Add(1)
				c.(*net.TCPConn).SetLinger(0) // at the end all are reset
				go func() {
					b := make([]byte, 4096)
					for {
						n, err := c.Write(b)
						written.Add(int64(n))
						if err != nil {
							return
						}
					}
				}()
			}
		})
	}
	wg.Wait()
	fmt.Printf("open %d refused %d failed %d written %d\n", open.Load(), refused.Load(), failed.Load(), written.Load())
	<-ctx.Done()
	return nil
}

// move says how many megabytes a second one connection carries: move up|down ADDR MEGABYTES
func move(args []string) error {
	n, _ := strconv.ParseInt(args[2], 10, 64)
	c, err := net.Dial("tcp", args[1])
	if err != nil {
		return err
	}
	defer c.Close()
	start := time.Now()
	b := make([]byte, 1<<20)
	for range n {
		if args[0] == "up" {
			_, err = c.Write(b)
		} else {
			_, err = io.ReadFull(c, b)
		}
		if err != nil {
			return err
		}
	}
	if args[0] == "up" { // all of it is there when the other end has closed
		c.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); err != nil {
			return err
		}
	}
	fmt.Printf("%.0f\n", float64(n<<20)/1e6/time.Since(start).Seconds())
	return nil
}

// flood sends datagrams as fast as it can to as many ports as there are: flood IP SECONDS
func flood(args []string) error {
	seconds, _ := strconv.Atoi(args[1])
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var sent atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			c, err := net.ListenUDP("udp4", nil)
			if err != nil {
				return
			}
			b := make([]byte, 1200)
			for port := 1000 + w; time.Now().Before(end); port += 4 {
				if port > 65000 {
					port = 1000 + w
				}
				if _, err := c.WriteToUDP(b, &net.UDPAddr{IP: net.ParseIP(args[0]), Port: port}); err == nil {
					sent.Add(1)
				}
			}
		})
	}
	wg.Wait()
	fmt.Println("sent", sent.Load())
	return nil
}

// resolve asks for a name's addresses, or its text: resolve ip NAME
func resolve(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var found []string
	var err error
	if args[0] == "txt" {
		found, err = net.DefaultResolver.LookupTXT(ctx, args[1])
	} else {
		found, err = net.DefaultResolver.LookupHost(ctx, args[1])
	}
	fmt.Println(strings.Join(found, " "))
	return err
}

// hold is there until its standard input ends.
func hold([]string) error {
	fmt.Println("here")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// pipe joins a connection to the socket that is its standard input.
func pipe(args []string) error {
	in, err := net.FileConn(os.Stdin)
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	go func() {
		io.Copy(c, in)
		c.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(in, c)
	in.Close()
	return err
}

// outside is everything that a guest may want to reach: at each address an echo by TCP and UDP at port 7, one that takes everything
// at port 9, one that takes nothing and sends without end at port 19, and with "dns" names at port 53: outside dns|- ADDR...
func outside(args []string) error {
	for _, a := range args[1:] {
		if err := serveEcho(a); err != nil {
			return err
		}
		if args[0] == "dns" {
			if err := serveNames(a); err != nil {
				return err
			}
		}
	}
	return hold(nil)
}

func serveEcho(addr string) error {
	ln, err := net.Listen("tcp4", addr+":7")
	if err != nil {
		return err
	}
	deaf, err := net.Listen("tcp4", addr+":19")
	if err != nil {
		return err
	}
	sink, err := net.Listen("tcp4", addr+":9")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := sink.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	u, err := net.ListenPacket("udp4", addr+":7")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	go func() {
		b := make([]byte, 64<<10)
		for {
			c, err := deaf.Accept()
			if err != nil {
				return
			}
			go func() {
				for {
					if _, err := c.Write(b); err != nil {
						c.Close()
						return
					}
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(b[:n], from)
		}
	}()
	return nil
}

// names are what the resolver outside knows.
var names = map[string]net.IP{
	"outside.test": net.IPv4(203, 0, 113, 10),
	"private.test": net.IPv4(192, 168, 77, 10),
	"cloud.test":   net.IPv4(169, 254, 169, 254),
	"host.test":    net.IPv4(127, 0, 0, 1),
}

// largeText does not fit into a datagram.
var largeText = strings.Repeat("large ", 40)

func serveNames(addr string) error {
	u, err := net.ListenPacket("udp4", addr+":53")
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", addr+":53")
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(answer(b[:n], false), from)
		}
	}()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var size [2]byte
				for {
					if _, err := io.ReadFull(c, size[:]); err != nil {
						return
					}
					q := make([]byte, binary.BigEndian.Uint16(size[:]))
					if _, err := io.ReadFull(c, q); err != nil {
						return
					}
					a := answer(q, true)
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
				}
			}()
		}
	}()
	return nil
}

// answer makes a DNS answer to a query of one question.
func answer(q []byte, stream bool) []byte {
	var labels []string
	at := 12
	for at < len(q) && q[at] != 0 && at+1+int(q[at]) <= len(q) {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
		at += 1 + int(q[at])
	}
	at++
	if at+4 > len(q) {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[at:])
	a := append([]byte(nil), q[:at+4]...)
	a[2], a[3] = 0x81, 0x80
	copy(a[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	record := func(data []byte) {
		a[7]++
		a = append(a, 0xc0, 12)
		a = binary.BigEndian.AppendUint16(a, kind)
		a = append(a, 0, 1, 0, 0, 0, 60)
		a = append(binary.BigEndian.AppendUint16(a, uint16(len(data))), data...)
	}
	name := strings.Join(labels, ".")
	ip, known := names[name]
	switch {
	case name == "large.test" && kind == 16 && !stream:
		a[2] |= 2 // truncated: ask by TCP
	case name == "large.test" && kind == 16:
		for range 20 {
			record(append([]byte{byte(len(largeText))}, largeText...))
		}
	case known && kind == 1:
		record(ip.To4())
	case !known && name != "large.test":
		a[3] |= 3 // no such name
	}
	return a
}
