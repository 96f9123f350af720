//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/leak"
	hale "github.com/halevm/hale/sdk/go"
	"github.com/halevm/hale/test/e2e/numbered"
)

// kill ends the daemon without a word.
func (h *host) kill() {
	h.t.Helper()
	if err := h.daemon.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	h.daemon.Wait()
}

// ask asks a guest over its published port, from where the daemon runs.
func (h *host) ask(method string, in api.Instance, path string) (string, error) {
	req, err := http.NewRequestWithContext(h.t.Context(), method, "http://"+published(in)+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := h.ns.transport().RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// number asks for one.
func (h *host) number(method string, in api.Instance, path string) int64 {
	h.t.Helper()
	s, err := h.ask(method, in, path)
	if err != nil {
		h.t.Fatalf("%s: %v", path, err)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		h.t.Fatalf("%s: %v", path, err)
	}
	return n
}

// A download of a numbered stream through a published port. It goes on to each mark only when it is let.
type download struct {
	got  atomic.Int64
	let  atomic.Int64 // it stops here, and so does its sender before long
	more chan struct{}
	done chan error
}

func (h *host) download(in api.Instance, size int64) *download {
	h.t.Helper()
	d := &download{more: make(chan struct{}, 16), done: make(chan error, 1)}
	req, err := http.NewRequestWithContext(h.t.Context(), "GET", fmt.Sprintf("http://%s/bytes?n=%d", published(in), size), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := h.ns.transport().RoundTrip(req)
	if err != nil {
		h.t.Fatal(err)
	}
	go func() {
		defer resp.Body.Close()
		var c numbered.Checker
		b := make([]byte, 64<<10)
		for c.Checked() < size {
			for c.Checked() >= d.let.Load() {
				<-d.more
			}
			n, err := resp.Body.Read(b)
			if _, wrong := c.Write(b[:n]); wrong != nil {
				err = wrong
			}
			d.got.Store(c.Checked())
			if err != nil && (err != io.EOF || c.Checked() != size) {
				d.done <- fmt.Errorf("after %d of %d bytes: %w", c.Checked(), size, err)
				return
			}
		}
		d.done <- nil
	}()
	return d
}

// to lets it go on to a mark.
func (d *download) to(mark int64) {
	d.let.Store(mark)
	d.more <- struct{}{}
}

// reaches waits for it to have got so much.
func (d *download) reaches(t *testing.T, mark int64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); d.got.Load() < mark; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-d.done:
			t.Fatalf("the download ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the download stands at %d", d.got.Load())
		}
	}
}

// A daemon is killed while two large downloads run through a published port and the guest holds a connection to the outside. One download
// ends before there is another daemon, the other goes on beyond its start; all of it comes byte for byte. Then nothing of the instance is
// other than it was.
func TestKilledUnderTransfers(t *testing.T) {
	inside, _ := newNamespaces(t)
	h := newHostIn(t, inside, workload)
	in := h.create(api.CreateInstanceRequest{
		Name: "web", Cmd: []string{"carry", ":80", "203.0.113.10:7"}, HealthCheck: check(`{"http":{"port":80},"interval":"200ms","timeout":"5s"}`),
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	before := h.awaitHealth("web", api.HealthStateHealthy)
	booted.Add(1)
	qemu, shim := h.qemuOf(in.ID), h.shimOf(in.ID)

	const mb = 1 << 20
	const short, long = 128 * mb, 384 * mb
	begun := time.Now()
	first, second := h.download(in, short), h.download(in, long)
	first.to(short / 2) // that it is not over before the daemon is killed
	second.to(256 * mb)
	second.reaches(t, 32*mb)
	carried := []int64{h.number("GET", in, "/carried")}
	first.to(short)
	h.kill()
	atKill := [2]int64{first.got.Load(), second.got.Load()}
	if atKill[0] >= short {
		t.Fatal("the short download was over already: the test shows nothing")
	}
	if err := <-first.done; err != nil {
		t.Errorf("the download that no daemon saw end: %v", err)
	}
	second.reaches(t, 256*mb)
	carried = append(carried, h.number("GET", in, "/carried"))
	if !alive(qemu) || !alive(shim) {
		t.Fatal("the machine ended with its daemon")
	}
	h.start(nil)
	started := time.Now()
	second.to(long)
	if err := <-second.done; err != nil {
		t.Errorf("the download that two daemons saw: %v", err)
	}
	took := time.Since(begun)
	carried = append(carried, h.number("GET", in, "/carried"))
	carried = append(carried, h.number("POST", in, "/finish"))
	t.Logf("%d MB in %v while the daemon was killed at %d and %d MB; outside and back %d bytes before, %d without a daemon, %d with the next, %d in all",
		(short+long)/mb, took.Round(time.Millisecond), atKill[0]/mb, atKill[1]/mb, carried[0], carried[1], carried[2], carried[3])
	for i := range carried[1:] {
		if i < 2 && carried[i+1] <= carried[i] || carried[i+1] < carried[i] {
			t.Errorf("the connection to the outside stood still: %v", carried)
		}
	}

	// Everything is as it was, and goes on.
	var after api.InstanceHealth
	eventually(t, "three probes of the next daemon", func() bool {
		var err error
		if after, err = h.InstanceHealth(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, r := range after.Results {
			if r.Time.After(started) && r.Outcome == string(health.Success) {
				n++
			}
		}
		return n >= 3
	})
	flips := func(h api.InstanceHealth) []api.HealthTransition { // without those that say that it was stale, for want of a daemon, and is not any more
		return slices.DeleteFunc(slices.Clone(h.Transitions), func(t api.HealthTransition) bool { return t.From == t.To })
	}
	if after.Status != api.HealthStateHealthy || !after.WindowStartedAt.Equal(*before.WindowStartedAt) || len(flips(after)) != len(flips(before)) {
		t.Errorf("its health is %s; the transitions were\n%+v, and are\n%+v", after.Status, before.Transitions, after.Transitions)
	}
	if out := h.run("web", "/workload", "print", "still here"); out != "still here" {
		t.Errorf("exec: %q", out)
	}
	if out := h.logs("web", api.LogSourceApp); !strings.Contains(out, "serving at :80") {
		t.Errorf("its log is %q", out)
	}
	if out, err := h.ask("GET", in, "/"); err != nil || out != "hello\n" {
		t.Errorf("its port: %q, %v", out, err)
	}
	if out, err := h.CheckInstanceHealth(t.Context(), "web"); err != nil || out.Outcome != string(health.Success) {
		t.Errorf("a check now: %+v, %v", out, err)
	}
	if h.qemuOf(in.ID) != qemu || h.shimOf(in.ID) != shim {
		t.Error("its processes are others")
	}
}

// How fast a guest may write without a daemon, of what it may with one.
const (
	pourTurns   = 3  // with a daemon and without: what else the host does is beside both
	pourWith    = 5  // seconds of a turn
	pourWithout = 10 // more than any buffer holds
	pourLeast   = 0.8
)

// A guest that writes as much as it can does so nearly as fast when there is no daemon, and never more than the bound of its log
// to the disk.
func TestOutputWithoutADaemon(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{
		Name: "pour", Cmd: []string{"pour", ":80"}, Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	h.await("pour", api.InstanceStateRunning)
	eventually(t, "it writes", func() bool {
		s, err := h.ask("GET", in, "/poured")
		return err == nil && s != "0"
	})
	var most int64
	measure := func(seconds int) (rates []float64) {
		t.Helper()
		for range seconds {
			at, start := h.number("GET", in, "/poured"), time.Now()
			for time.Since(start) < time.Second {
				time.Sleep(100 * time.Millisecond)
				most = max(most, sizeOf(t, filepath.Join(h.dir, "instances", in.ID, "vm/log"), "app"))
			}
			rates = append(rates, float64(h.number("GET", in, "/poured")-at)/1e6/time.Since(start).Seconds())
		}
		return rates
	}
	var with, without []float64
	for range pourTurns {
		with = append(with, measure(pourWith)...)
		h.kill()
		without = append(without, measure(pourWithout)...)
		h.start(nil)
	}
	with = append(with, measure(pourWith)...)
	// Of single seconds: in some the host is somebody else's.
	slices.Sort(with)
	slices.Sort(without)
	one, none := with[len(with)/2], without[len(without)/2]
	ratio := none / one
	t.Logf("MB/s in the median second with a daemon %.1f (%.1f to %.1f), without one %.1f (%.1f to %.1f): ×%.2f; app.log took at most %.1f MB",
		one, with[0], with[len(with)-1], none, without[0], without[len(without)-1], ratio, float64(most)/1e6)
	if ratio < pourLeast {
		t.Errorf("without a daemon it writes at %.0f%% of the rate, want %.0f%%", ratio*100, pourLeast*100)
	}
	if most > logBound || most == 0 {
		t.Errorf("its log took %d bytes, want some and at most %d", most, logBound)
	}
	if out := h.run("pour", "/workload", "print", "still here"); out != "still here" {
		t.Errorf("exec: %q", out)
	}
}

// sizeOf is what the files with a prefix take in a directory.
func sizeOf(t *testing.T, dir, prefix string) (sum int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil { // it may be rotated away
			sum += st.Size()
		}
	}
	return sum
}

// backIn is how long a daemon may take, from the start of its process, to have six machines back, on a host that keeps nobody waiting. It, a shim
// and an agent are asked in turn, twice.
const backIn = 2 * time.Second

// Six machines are all there for whoever asks the next daemon.
func TestSixMachinesAreTakenBack(t *testing.T) {
	h := newHost(t, workload)
	var ids []string
	for i := range 6 {
		ids = append(ids, h.create(api.CreateInstanceRequest{Name: fmt.Sprint("six-", i), Size: "128MB", Cmd: []string{"sleep"}}).ID)
	}
	for _, id := range ids {
		h.await(id, api.InstanceStateRunning)
	}
	h.kill()
	late := lateness()
	begun := time.Now()
	h.start(nil)
	ready := time.Now()
	for _, id := range ids {
		// At once, unless the host keeps its shim waiting for longer than the daemon waits before it is ready.
		w, err := h.WaitInstance(t.Context(), id, hale.Wait{State: api.InstanceStateRunning, Timeout: time.Minute})
		if err != nil || w.State != api.InstanceStateRunning {
			t.Fatalf("%s is %s, %v", id, w.State, err)
		}
		// Its agent answers, by its shim.
		if st, err := h.StatPath(t.Context(), id, "/workload", true); err != nil || !st.IsFile {
			t.Fatalf("%s: %+v, %v", id, st, err)
		}
	}
	back := time.Since(begun)
	t.Logf("six machines answer %v after the daemon was started, %v after it was ready", back.Round(time.Millisecond), time.Since(ready).Round(time.Millisecond))
	if _, worst := late(); back > backIn+6*worst {
		t.Errorf("it took %v, want %v, and the host keeps a ticker waiting %v", back, backIn, worst)
	}

	// What they hold is known, and so is what is left of one that dies when no daemon sees it.
	held, err := h.holdings()
	if err != nil {
		t.Error(err)
	}
	kinds := map[string]int{}
	for _, x := range held {
		if strings.HasPrefix(x.Owner, "instance ") {
			kinds[x.Kind]++
		}
	}
	// As root each has a uid of its own.
	if kinds["process"] != 12 || kinds["socket"] < 6 || os.Getuid() == 0 && kinds["uid"] != 6 {
		t.Errorf("six machines hold %v", kinds)
	}
	h.kill()
	shim, qemu := h.shimOf(ids[0]), h.qemuOf(ids[0])
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shim and its hypervisor are gone", func() bool { return !alive(shim) && !alive(qemu) })
	held, err = h.holdings()
	var left []string
	for _, x := range held {
		if x.Left {
			left = append(left, x.Owner+" "+x.What)
		}
	}
	if err == nil || len(left) != 1 || !strings.Contains(left[0], "instance "+ids[0]) {
		t.Errorf("left over are %q, %v", left, err)
	}
	h.start(nil)
	if in, err := h.Instance(t.Context(), ids[0]); err != nil || in.State != api.InstanceStateStopped || in.ExitReason != "shim_died" {
		t.Errorf("the next daemon finds it %s (%s), %v", in.State, in.ExitReason, err)
	}
	h.noLeftovers()
}

// holdings asks hale doctor; an error is that something is left over.
func (h *host) holdings() (held []leak.Holding, err error) {
	h.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(binary, "doctor", "--leaks", "--json", "--data-dir", h.dir)
	cmd.Stdout = &out
	err = cmd.Run()
	if jerr := json.Unmarshal(out.Bytes(), &held); jerr != nil {
		h.t.Fatal(jerr)
	}
	return held, err
}
