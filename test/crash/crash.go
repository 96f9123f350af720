// Package crash kills daemons at random moments of a random mix of operations, and holds what the next daemon finds against what the
// last one acknowledged: nothing that was acknowledged is lost, nothing is there twice, nothing is there that nobody asked for, and
// every record can be read.
//
// Each of a few workers has one name, and does one operation after the other with the instance of that name. So at a kill there is at most
// one operation of each that was asked for and not acknowledged, and that one may have been done or not: both are right, anything between
// them is not.
//
// A daemon is also killed before it is ready, now and then. What is random comes from a seed; what the kernel makes of the moments does not.
package crash

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	hale "github.com/halevm/hale/sdk/go"
)

// A Config says what to kill and what it is asked for meanwhile.
type Config struct {
	Binary string   // hale
	Args   []string // of hale serve, beside --data-dir and --listen
	Dir    string   // the data directory
	Seed   uint64
	Kills  int
	Names  int           // workers
	Boots  time.Duration // how long a worker waits for a machine to come up, if nothing comes between
	Within time.Duration // a daemon is killed so long after it was ready, or sooner

	// Survive says that machines outlive the daemon. Those of the fake driver end with it.
	Survive bool
	Archive string   // a docker-archive of the image that instances are made from; "": one is made, for the fake driver
	Runs    []string // a command that goes on
	Ends    []string // one that ends by itself, with 3
	Command []string // what to exec; it ends with 7
	Size    string   // the instances' memory
}

// Patience is how long anything may take that is not killed.
const patience = time.Minute

// A test is one run of Config.
type test struct {
	Config
	*testing.T
	*hale.Client
	daemon *exec.Cmd
	log    *bytes.Buffer

	mu       sync.Mutex
	done     map[string]int // acknowledged operations, by their kinds
	cut      map[string]int // those that a kill cut off
	image    string         // of the instances
	slots    []*slot
	images   map[string]bool // by name: whether its import was acknowledged
	sentinel string          // an instance that nobody works with
	place    string          // in the events
	followed map[string]*life
}

// Run runs it. At the end all instances are deleted, and the last daemon is ended in order.
func Run(t *testing.T, c Config) {
	x := &test{Config: c, T: t, done: map[string]int{}, cut: map[string]int{}, images: map[string]bool{}, followed: map[string]*life{}}
	for i := range c.Names {
		x.slots = append(x.slots, &slot{name: fmt.Sprintf("crash-%d", i)})
	}
	t.Cleanup(func() {
		if x.daemon != nil && x.daemon.ProcessState == nil {
			x.kill()
		}
		if t.Failed() {
			t.Logf("seed %d; the last daemon's log:\n%s", c.Seed, x.log)
		}
	})
	x.start()
	x.begin()
	moments := rand.New(rand.NewPCG(c.Seed, 0))
	for round := range c.Kills {
		x.work(round, time.Duration(moments.Int64N(int64(c.Within))))
		if moments.IntN(4) == 0 { // the next one too, before it is ready, or just then
			x.launch()
			time.Sleep(time.Duration(moments.Int64N(int64(100 * time.Millisecond))))
			x.kill()
		}
		x.start()
		x.check()
		if t.Failed() {
			return
		}
	}
	t.Logf("seed %d: %d kills; acknowledged %v, cut off %v", c.Seed, c.Kills, x.done, x.cut)
	x.end()
}

// launch starts a daemon, and returns what it says on its standard output.
func (x *test) launch() *bufio.Reader {
	x.Helper()
	x.log = new(bytes.Buffer)
	x.daemon = exec.Command(x.Binary, append([]string{"serve", "--data-dir", x.Dir, "--listen", "127.0.0.1:0"}, x.Args...)...)
	x.daemon.Stderr = x.log
	out, err := x.daemon.StdoutPipe()
	if err != nil {
		x.Fatal(err)
	}
	if err := x.daemon.Start(); err != nil {
		x.Fatal(err)
	}
	return bufio.NewReader(out)
}

// start starts a daemon and returns when it is ready.
func (x *test) start() {
	x.Helper()
	if line, err := x.launch().ReadString('\n'); err != nil || !strings.HasPrefix(line, "hale is ready") {
		x.kill()
		x.Fatalf("the daemon says %q, %v\n%s", line, err, x.log)
	}
	var where struct{ URL string }
	b, err := os.ReadFile(filepath.Join(x.Dir, "hale.json"))
	if err == nil {
		err = json.Unmarshal(b, &where)
	}
	if err != nil {
		x.Fatal(err)
	}
	token, err := exec.Command(x.Binary, "token", "--data-dir", x.Dir).Output()
	if err != nil {
		x.Fatal(err)
	}
	if x.Client, err = hale.New(where.URL, strings.TrimSpace(string(token))); err != nil {
		x.Fatal(err)
	}
}

func (x *test) kill() {
	x.daemon.Process.Kill()
	x.daemon.Wait()
}

// work has every worker at work until the daemon is killed, after so long.
func (x *test) work(round int, after time.Duration) {
	ctx, cancel := context.WithTimeout(x.Context(), after+patience)
	defer cancel()
	var workers sync.WaitGroup
	for i, s := range x.slots {
		r := rand.New(rand.NewPCG(x.Seed, uint64(round*1000+i+1)))
		workers.Go(func() {
			for x.operate(ctx, s, r) {
			}
		})
	}
	r := rand.New(rand.NewPCG(x.Seed, uint64(round*1000+999)))
	workers.Go(func() {
		for n := 0; x.load(ctx, fmt.Sprintf("crash/image-%d-%d:latest", round, n), r); n++ {
			time.Sleep(time.Duration(r.Int64N(int64(x.Within / 10)))) // the processors are the instances'
		}
	})
	time.Sleep(after)
	x.kill()
	workers.Wait()
}

// count counts an operation, and reports whether it was acknowledged.
func (x *test) count(what string, acknowledged bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if acknowledged {
		x.done[what]++
	} else {
		x.cut[what]++
	}
	return acknowledged
}

// load imports an image of its own; it reports whether that was answered.
func (x *test) load(ctx context.Context, ref string, r *rand.Rand) bool {
	archive, err := archiveOf(ref, r)
	if err != nil {
		x.Error(err)
		return false
	}
	_, err = x.ImportImage(ctx, archive, hale.Import{})
	if x.refused("import", err) {
		return false
	}
	x.mu.Lock()
	x.images[ref] = err == nil
	x.mu.Unlock()
	return x.count("import", err == nil)
}

// archiveOf is an image of a few kilobytes that is no other's.
func archiveOf(ref string, r *rand.Rand) (*bytes.Buffer, error) {
	img, err := random.Image(1+r.Int64N(64<<10), 1+r.Int64N(2), random.WithSource(mathrand.NewSource(r.Int64())))
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", "amd64", v1.Config{Cmd: []string{"sleep"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, err
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return nil, err
	}
	b := new(bytes.Buffer)
	return b, tarball.Write(tag, img, b)
}

// importBase imports the image that instances are made from, which stays.
func (x *test) importBase() {
	x.Helper()
	var archive io.Reader
	f, err := os.Open(x.Archive)
	if x.Archive == "" {
		archive, err = archiveOf("crash/base:latest", rand.New(rand.NewPCG(0, 0)))
	} else if err == nil {
		defer f.Close()
		archive = f
	}
	if err != nil {
		x.Fatal(err)
	}
	img, err := x.ImportImage(x.Context(), archive, hale.Import{})
	if err != nil {
		x.Fatal(err)
	}
	x.image = img.Name
}
