package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/guest/protocol"
)

const (
	heading4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	heading6 = "  sl  local_address                         remote_address                        st tx_queue rx_queue\n"
	rest     = " 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0\n"
)

// tables writes the kernel's tables of sockets; each entry is "LOCAL STATE", with the address in the kernel's form.
func tables(t *testing.T, tcp, tcp6 []string) *portTables {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string][]string{"tcp": tcp, "tcp6": tcp6} {
		if entries == nil {
			continue // a kernel without it
		}
		var b strings.Builder
		b.WriteString(map[string]string{"tcp": heading4, "tcp6": heading6}[name])
		for i, e := range entries {
			local, state, _ := strings.Cut(e, " ")
			fmt.Fprintf(&b, "%4d: %s 00000000:0000 %s%s", i, local, state, rest)
		}
		if err := os.WriteFile(filepath.Join(dir, "net", name), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := newPortTables(dir)
	t.Cleanup(p.close)
	return p
}

func TestWhereAPortIsListenedOn(t *testing.T) {
	const (
		all4, all6   = "00000000:0050 0A", "00000000000000000000000000000000:0050 0A"
		own4, own6   = "0200000A:0050 0A", "0000000000000000FFFF00000200000A:0050 0A"
		lo4, lo6     = "0100007F:0050 0A", "00000000000000000000000001000000:0050 0A"
		mapped       = "0000000000000000FFFF00000100007F:0050 0A"
		lo53, other4 = "3500007F:0050 0A", "0300000A:0050 0A"
		another      = "00000000:0051 0A"
		connected    = "0200000A:0050 01"
	)
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("00000000:%04X 0A", 1000+i))
	}
	for name, c := range map[string]struct {
		tcp, tcp6 []string
		want      protocol.Where
	}{
		"nobody":                          {[]string{}, []string{}, protocol.Nowhere},
		"every address":                   {[]string{all4}, []string{}, protocol.Open},
		"every address of both kinds":     {[]string{}, []string{all6}, protocol.Open},
		"the guest's own":                 {[]string{own4}, nil, protocol.Open},
		"the guest's own, through v6":     {[]string{}, []string{own6}, protocol.Open},
		"loopback":                        {[]string{lo4}, nil, protocol.Loopback},
		"another loopback":                {[]string{lo53}, nil, protocol.Loopback},
		"loopback of v6":                  {[]string{}, []string{lo6}, protocol.Loopback},
		"loopback through v6":             {[]string{}, []string{mapped}, protocol.Loopback},
		"loopback, and every":             {[]string{lo4, all4}, nil, protocol.Open},
		"loopback, and every of v6":       {[]string{lo4}, []string{all6}, protocol.Open},
		"an address that is not ours":     {[]string{other4}, nil, protocol.Nowhere},
		"another port":                    {[]string{another}, nil, protocol.Nowhere},
		"only connections":                {[]string{connected}, nil, protocol.Nowhere},
		"after many others":               {append(many, all4), nil, protocol.Open},
		"not below connections":           {[]string{connected, all4}, nil, protocol.Nowhere},
		"no tables":                       {nil, nil, protocol.Nowhere},
		"a line of something else":        {[]string{"what:is this", all4}, nil, protocol.Nowhere},
		"an address of a length of a lie": {[]string{strings.Repeat("00", 40) + ":0050 0A"}, nil, protocol.Nowhere},
	} {
		t.Run(name, func(t *testing.T) {
			p := tables(t, c.tcp, c.tcp6)
			for range 2 { // the files stay open
				if got := p.where(netip.MustParseAddrPort("10.0.0.2:80")); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			}
		})
	}
}

// Connections are not read: the kernel would write them all out, at each look.
func TestConnectionsAreNotRead(t *testing.T) {
	entries := []string{"0100007F:0050 0A"}
	for range 10000 {
		entries = append(entries, "0200000A:0050 01")
	}
	p := tables(t, entries, nil)
	p.where(netip.MustParseAddrPort("10.0.0.2:80"))
	if cap(p.buf) > 8*portPiece {
		t.Errorf("%d bytes were read for two lines", cap(p.buf))
	}
}

// The kernel's own tables, and a listener of this process.
func TestTheAgentTellsOfItsPort(t *testing.T) {
	l := startAgent(t)
	heard := make(chan protocol.Where, 16)
	l.connect(guest.Options{
		Boot:      protocol.Boot{Process: sleeper},
		Listening: func(_ uint16, where protocol.Where) { heard <- where },
	})
	l.running()
	probe, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// An address of this host that is not the first of loopback stands for the guest's own.
	local := probe.Addr().String()
	port := netip.MustParseAddrPort(local).Port()
	own := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)
	next := func(want protocol.Where) {
		t.Helper()
		if got := <-heard; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	}
	l.conn.Watch(own)
	next(protocol.Loopback)
	ln, err := net.Listen("tcp4", own.String())
	if err != nil {
		t.Fatal(err)
	}
	next(protocol.Open)
	ln.Close()
	next(protocol.Loopback)
	probe.Close()
	next(protocol.Nowhere)
	// Nothing is told of what is not watched any more; and what is watched again is told of at once.
	l.conn.Watch(netip.AddrPort{})
	if ln, err = net.Listen("tcp4", own.String()); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l.conn.Watch(own)
	next(protocol.Open)
	if len(heard) > 0 {
		t.Errorf("and then %s", <-heard)
	}
}

// A program that takes minutes to start is heard of as soon as one that takes seconds.
func TestHowSoonAPortIsHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tables := tables(t, []string{}, nil)
		listens := func(entries string) {
			if err := os.WriteFile(tables.paths[0], []byte(heading4+entries), 0o600); err != nil {
				t.Error(err)
			}
		}
		ours, theirs := net.Pipe()
		a := &Agent{control: newLink()}
		out := protocol.NewWriter(ours)
		a.control.up(out)
		ctx, cancel := context.WithCancel(t.Context())
		s := &session{id: 1, ctx: ctx, watches: make(chan protocol.Watch, 1)}
		over, heard := make(chan struct{}), make(chan protocol.Where)
		go func() { defer close(over); a.lookAtPorts(s, tables) }()
		go func() {
			defer close(heard)
			for in := protocol.NewReader(theirs); ; {
				f, err := in.Next()
				if err != nil {
					return
				}
				var m protocol.Listening
				if err := json.Unmarshal(f.Payload, &m); err != nil {
					t.Error(err)
				}
				heard <- m.Where
			}
		}()
		soon := func(what string, want protocol.Where, within time.Duration) {
			t.Helper()
			began := time.Now()
			if got := <-heard; got != want || time.Since(began) > within {
				t.Errorf("%s: %s after %v; want %s within %v", what, got, time.Since(began), want, within)
			}
		}
		open := "   0: 00000000:0050 00000000:0000 0A" + rest
		watch := func() {
			s.watches <- protocol.Watch{Addr: netip.MustParseAddrPort("10.0.0.2:80")}
			soon("at first", protocol.Nowhere, 0)
		}
		later := func(d time.Duration) { time.Sleep(d + time.Millisecond) }
		watch()
		later(9 * time.Minute)
		listens(open)
		soon("a start of nine minutes", protocol.Open, fastLook)
		later(time.Hour)
		listens("")
		soon("its end", protocol.Nowhere, slowLook)
		later(50 * time.Second)
		listens(open)
		soon("its next start", protocol.Open, fastLook)
		later(time.Hour)
		listens("")
		soon("its end", protocol.Nowhere, slowLook)
		watch()
		later(time.Hour)
		listens(open)
		began := time.Now()
		soon("a start of an hour", protocol.Open, slowLook)
		if time.Since(began) <= fastLook {
			t.Error("what has not come in an hour is still looked for as often")
		}
		cancel()
		<-over
		out.Close()
		<-out.Done()
		theirs.Close()
		<-heard
	})
}

func FuzzListener(f *testing.F) {
	f.Add([]byte("   0: 0100007F:0050 00000000:0000 0A" + rest))
	f.Add([]byte("   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A" + rest))
	f.Add([]byte("0: :0 : 0A"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if at, listens := listener(line); listens && !at.IsValid() {
			t.Errorf("%q listens nowhere", line)
		}
	})
}
