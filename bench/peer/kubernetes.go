package peer

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"

	"github.com/halevm/hale/bench/target"
)

// counts are those of peers that know nothing but whether a target answered.
type counts struct{ probes, failures atomic.Int64 }

func (c *counts) count(ok bool) {
	c.probes.Add(1)
	if !ok {
		c.failures.Add(1)
	}
}

func (c *counts) reset() { c.probes.Store(0); c.failures.Store(0) }

func (c *counts) stats(s *Stats, _ bool) {
	s.Probes, s.Failures = c.probes.Load(), c.failures.Load()
}

// newKubernetes drives the prober of kubelet as kubelet does: one goroutine and one ticker for each target, a request made anew for
// each probe, from one prober for all. How it dials cannot be told to it.
func newKubernetes(c Config) (watcher, error) {
	w := new(counts)
	web, tcp := httpprobe.New(false), tcpprobe.New()
	for i, a := range c.Targets {
		url := fmt.Sprintf("http://%s/", a)
		go ticking(c, i, func() bool {
			var result probe.Result
			if c.Type == "tcp" {
				result, _, _ = tcp.Probe(a.Host(), int(a.Port), c.Timeout)
			} else {
				r, err := http.NewRequest("GET", url, nil)
				if err != nil {
					return false
				}
				r.Header.Set("User-Agent", "kube-probe/1.36")
				r.Header.Set("Accept", "*/*")
				result, _, _ = web.Probe(r, c.Timeout)
			}
			return result == probe.Success
		}, w)
	}
	return w, nil
}

// ticking asks at every tick of a ticker of its own.
func ticking(c Config, i int, ask func() bool, w *counts) {
	time.Sleep(c.stagger(i))
	for t := time.NewTicker(c.Interval); ; <-t.C {
		w.count(ask())
	}
}

// newClient is Go's default client in a ticker for each target: what one writes first.
func newClient(c Config) (watcher, error) {
	w := new(counts)
	client := newHTTPClient(c)
	for i, a := range c.Targets {
		go ticking(c, i, func() bool { return get(client, a) }, w)
	}
	return w, nil
}

// newHTTPClient returns Go's default client, with a timeout, and with connections that are set as hale's are.
func newHTTPClient(c Config) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	dialer := net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { lateAck(int(fd)) })
	}}
	transport.DialContext = dialer.DialContext
	return &http.Client{Timeout: c.Timeout, Transport: transport}
}

// newSerial is the naive controller: one goroutine that asks whatever a channel of timers says is due, one after the other.
func newSerial(c Config) (watcher, error) {
	w := new(counts)
	client := newHTTPClient(c)
	due := make(chan int, len(c.Targets))
	for i := range c.Targets {
		time.AfterFunc(c.stagger(i), func() { due <- i })
	}
	go func() {
		for i := range due {
			w.count(get(client, c.Targets[i]))
			time.AfterFunc(c.Interval, func() { due <- i })
		}
	}()
	return w, nil
}

func get(client *http.Client, a target.Address) bool {
	r, err := client.Get(fmt.Sprintf("http://%s/", a))
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == http.StatusOK
}
