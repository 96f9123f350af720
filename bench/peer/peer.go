// Package peer asks many targets over and over, in a process of its own: with hale's health engine, or with one of the programs and
// libraries that it is compared with. Each peer does what its users get by default, but that its timers may be late as hale's may, and
// that it asks the kernel for the same of its connections where it can be told to.
package peer

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/bench/target"
	"github.com/halevm/hale/internal/slack"
)

// A Config says what is to be asked, and by whom.
type Config struct {
	Peer     string // a key of peers
	Type     string // http or tcp
	Targets  []target.Address
	Interval time.Duration
	Timeout  time.Duration
	// Of hale:
	Policy string // the rest of a health_check, "" for a common one
	Full   bool   // histories have all their results from the beginning: the targets were always well
	Turned bool   // and all their transitions: the targets were well and not in turn
	Wait   bool   // for a Request to Start
	Others int    // the first so many targets are bad on purpose: their lag is not counted
	Seed   uint64 // the targets are fickle, by this seed, and what the engine says of them is checked
	Server int    // the process that serves them: its time without a processor is theirs; 0: nobody looks
}

// A Request asks a peer for something.
type Request struct {
	Profile string        // write a profile of the processor to this file from now on; "-": end it
	Reset   bool          // forget lags and counts
	Collect bool          // garbage, before memory is read
	Look    bool          // count the unhealthy, and tell the moves since the last Reset
	Start   bool          // begin to watch
	Spread  time.Duration // of the first probes
}

// Stats is what a peer knows of itself.
type Stats struct {
	Probes     int64
	Failures   int64
	Lag        Quantiles // of a probe's start behind its due time; hale only
	Goroutines int
	Files      int
	Memory     int64 // resident, of this process alone
	Heap       int64 // of that, what is alive, and what is not yet collected
	Stacks     int64
	Watched    int
	Unhealthy  int
	Opened     time.Duration // when the watch began, by target.Uptime
	Moves      []Move
	Checked    int64    // results that were compared with what the targets did
	Starved    int64    // of those that say nothing, because the host was starved
	Wrong      int64    // results, or statuses, that are not what the targets did
	Words      []string // about them
}

// A watcher asks until the process ends.
type watcher interface {
	stats(s *Stats, look bool)
	reset()
}

var peers = map[string]func(Config) (watcher, error){
	"hale":       newHale,
	"kubernetes": newKubernetes,
	"client":     newClient,
	"serial":     newSerial,
	"floor":      newFloor,
}

// Serve is the main function of a peer.
func Serve(in *json.Decoder, out *json.Encoder) error {
	if err := target.RaiseFiles(); err != nil {
		return err
	}
	if err := slack.Set(slack.Probing); err != nil { // as hale's daemon does: what it is worth to one it is worth to all
		return err
	}
	var c Config
	if err := in.Decode(&c); err != nil {
		return err
	}
	if peers[c.Peer] == nil {
		return fmt.Errorf("no peer %q", c.Peer)
	}
	w, err := peers[c.Peer](c)
	if err != nil {
		return err
	}
	if err := out.Encode("here"); err != nil {
		return err
	}
	for {
		var r Request
		if err := in.Decode(&r); err != nil {
			return err
		}
		if err := profile(r.Profile); err != nil {
			return err
		}
		if r.Reset {
			w.reset()
		}
		if h, ok := w.(*hale); ok {
			h.request(r)
		}
		s := Stats{Goroutines: runtime.NumGoroutine()}
		w.stats(&s, r.Look)
		if r.Collect { // what was told leaves garbage too
			debug.FreeOSMemory()
		}
		if err := s.ofProcess(); err != nil {
			return err
		}
		if err := out.Encode(s); err != nil {
			return err
		}
	}
}

func profile(to string) error {
	switch to {
	case "":
		return nil
	case "-":
		pprof.StopCPUProfile()
		return nil
	}
	if name, ok := strings.CutPrefix(to, "heap:"); ok {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		return pprof.WriteHeapProfile(f)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(f)
}

func (s *Stats) ofProcess() error {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	s.Files = len(files)
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	var pages, resident int64
	if _, err := fmt.Sscan(string(b), &pages, &resident); err != nil {
		return err
	}
	s.Memory = resident * int64(unix.Getpagesize())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap, s.Stacks = int64(m.HeapAlloc), int64(m.StackInuse)
	return nil
}

// stagger returns when the i-th target's first probe is due, so that those of all are spread over one interval.
func (c *Config) stagger(i int) time.Duration {
	return c.Interval * time.Duration(i) / time.Duration(len(c.Targets))
}
