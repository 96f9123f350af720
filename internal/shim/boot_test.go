package shim

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/guest"
	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/logfile"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// puppet is a virtual machine that does nothing until it is killed.
type puppet struct {
	once    sync.Once
	done    chan struct{}
	events  chan hypervisor.Event
	control net.Conn // its end
	exit    hypervisor.Exit
}

func (p *puppet) PID() int                        { return 1 }
func (p *puppet) Events() <-chan hypervisor.Event { return p.events }
func (p *puppet) Done() <-chan struct{}           { return p.done }
func (p *puppet) Wait() hypervisor.Exit           { <-p.done; return p.exit }
func (p *puppet) Kill() error                     { p.once.Do(func() { p.control.Close(); close(p.done) }); return nil }
func (p *puppet) Pause() error                    { return nil }
func (p *puppet) Resume() error                   { return nil }

// agent answers HELLO and takes the configuration; it starts the program if it is told to.
func agent(t *testing.T, control net.Conn, starts bool) {
	out := guestprotocol.NewWriter(control)
	defer out.Close()
	say := func(k guestprotocol.Type, session uint64, m any) {
		f, err := guestprotocol.JSON(k, session, m)
		if err != nil {
			t.Error(err)
		}
		out.Send(context.Background(), f)
	}
	for r := guestprotocol.NewReader(control); ; {
		f, err := r.Next()
		if err != nil {
			return
		}
		switch f.Type {
		case guestprotocol.TypeHello:
			say(guestprotocol.TypeWelcome, f.Session, guestprotocol.Welcome{Version: guestprotocol.Version})
		case guestprotocol.TypeRequest:
			var q guestprotocol.Request
			if err := json.Unmarshal(f.Payload, &q); err != nil {
				t.Error(err)
			}
			say(guestprotocol.TypeReply, f.Session, guestprotocol.Reply{ID: q.ID})
			if starts {
				say(guestprotocol.TypeState, f.Session, guestprotocol.State{Booted: true, Started: true})
			}
		}
	}
}

// puppeteer is a run of a puppet, in a directory of its own.
func puppeteer(t *testing.T, deadline time.Duration) (r *run, vm *puppet, control net.Conn) {
	t.Helper()
	t.Chdir(t.TempDir())
	root, err := (&runDir{path: "."}).make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	vm = &puppet{done: make(chan struct{}), events: make(chan hypervisor.Event, 1), exit: hypervisor.Exit{Code: -1}}
	r = &run{c: protocol.Config{BootDeadline: deadline}, log: slog.New(slog.DiscardHandler), root: root, vm: vm, asks: make(chan ask)}
	for name, w := range map[string]**logfile.Writer{"app.log": &r.app, "vmm.log": &r.vmm} {
		if *w, err = logfile.Create(root, logDirName+"/"+name, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if r.server, err = listen(socketName, secret, os.Getuid()); err != nil {
		t.Fatal(err)
	}
	r.disk = newDiskFull(vm.Resume, r.server.voice().say)
	ours, control := net.Pipe()
	vm.control = control
	bulk, other := net.Pipe()
	t.Cleanup(func() { control.Close(); other.Close() })
	r.agent = guest.Open(ours, bulk, guest.Options{})
	return r, vm, control
}

func (r *run) told() (kinds []machine.NoticeKind, exit machine.Exit) {
	for _, n := range r.server.notices {
		kinds = append(kinds, n.Kind)
		exit = n.Exit
	}
	return kinds, exit
}

// A guest that hangs between its HELLO and the program's start does not stay so for ever.
func TestBootIsBoundedBehindHello(t *testing.T) {
	r, _, control := puppeteer(t, 2*time.Second)
	go agent(t, control, false)
	r.toTheEnd()
	kinds, exit := r.told()
	if len(kinds) != 2 || kinds[0] != machine.AgentReady {
		t.Errorf("told %v", kinds)
	}
	_, in, _ := strings.Cut(exit.Message, "the guest agent came up, and did not start the program within 2s: in ")
	in, _, _ = strings.Cut(in, " ")
	if took, err := time.ParseDuration(in); exit.Reason != machine.BootTimeout || err != nil || took < 2*time.Second { // more where the host kept it waiting
		t.Errorf("ended with %+v", exit)
	}
}

func TestBootIsBoundedBeforeHello(t *testing.T) {
	r, _, _ := puppeteer(t, 100*time.Millisecond)
	r.disk.found() // and meanwhile the disk is full
	r.toTheEnd()
	kinds, exit := r.told()
	if len(kinds) != 1 || exit.Reason != machine.BootTimeout ||
		exit.Message != "the guest did not come up within 100ms: the host's disk is full, and the machine stood still" {
		t.Errorf("told %v, ended with %+v", kinds, exit)
	}
}

// Neither deadline is for a program that runs.
func TestBootIsOver(t *testing.T) {
	const deadline = 2 * time.Second // and the agent is there at once, as soon as the host lets it
	r, vm, control := puppeteer(t, deadline)
	go agent(t, control, true)
	defer time.AfterFunc(5*deadline/2, func() { vm.Kill() }).Stop()
	r.toTheEnd()
	if kinds, exit := r.told(); len(kinds) != 3 || kinds[1] != machine.Started || exit.Reason == machine.BootTimeout {
		t.Errorf("told %v, ended with %+v", kinds, exit)
	}
}

// A busy host's guest has as long as it was given, and not for ever.
func TestBootOnABusyHost(t *testing.T) {
	const each = time.Minute
	for name, c := range map[string]struct {
		share time.Duration // of each second, what a thread that wants a processor waits for one
		want  time.Duration
	}{
		"a quiet one":      {0, each},
		"a busy one":       {500 * time.Millisecond, 2 * each},
		"a very busy one":  {750 * time.Millisecond, 4 * each},
		"one that is full": {time.Second, bootStretch * each},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				waits := func() time.Duration { return time.Duration(time.Since(begun).Seconds() * float64(c.share)) }
				b := newBoot(each, func() turns {
					return turns{"1": {waited: time.Hour + waits(), ran: time.Second}, "2": {waited: waits() / 2}}
				})
				defer b.done()
				for <-b.timer.C; b.respite(); <-b.timer.C {
				}
				if took := time.Since(begun); (took - c.want).Abs() > 2*time.Second {
					t.Errorf("failed after %v, not %v", took, c.want)
				}
			})
		})
	}
}

// Each of the two parts has its own time, and is charged for its own.
func TestBootPartsAreChargedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waited := time.Duration(0)
		b := newBoot(time.Minute, func() turns { return turns{"1": {waited: waited}} })
		defer b.done()
		time.Sleep(50 * time.Second)
		waited = 40 * time.Second // before HELLO
		if !b.said() {
			t.Fatal("not in time")
		}
		begun := time.Now()
		for <-b.timer.C; b.respite(); <-b.timer.C {
		}
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("what it waited before its HELLO counts behind it: %v", took)
		}
	})
}

// What a machine was doing is in its exit, and all of it in the log.
func TestSilentBootIsLookedAt(t *testing.T) {
	r, _, _ := puppeteer(t, 50*time.Millisecond)
	r.vm = watched{r.vm}
	r.toTheEnd()
	_, exit := r.told()
	if !strings.HasPrefix(exit.Message, "the guest did not come up within 50ms: in ") || !strings.HasSuffix(exit.Message, "; processor 0 halted") {
		t.Errorf("%q", exit.Message)
	}
	if b, _ := os.ReadFile(logDirName + "/vmm.log"); !strings.Contains(string(b), "RIP=0\n") {
		t.Errorf("%s", b)
	}
}

type watched struct{ hypervisor.VM }

func (watched) Look(context.Context) (string, string) { return "processor 0 halted", "RIP=0\n" }

// A machine that does not come up is being looked at, which takes its time: a kill does not wait for that, and is what its exit tells of.
func TestAKillDoesNotWaitForALook(t *testing.T) {
	r, vm, _ := puppeteer(t, 50*time.Millisecond)
	looking := make(chan struct{})
	r.vm = hung{vm, looking}
	ended := make(chan struct{})
	go func() { defer close(ended); r.toTheEnd() }()
	<-looking
	begun := time.Now()
	if err := r.ask(t.Context(), ask{kill: true}); err != nil {
		t.Error(err)
	}
	<-ended
	if took := time.Since(begun); took > lookTimeout*4/5 {
		t.Errorf("it was killed after %v", took)
	}
	if _, exit := r.told(); exit.Reason != machine.Killed {
		t.Errorf("it ended with %+v", exit)
	}
}

// A hung machine's hypervisor does not answer.
type hung struct {
	hypervisor.VM
	looking chan<- struct{}
}

func (h hung) Look(ctx context.Context) (string, string) {
	close(h.looking)
	<-ctx.Done()
	return "qemu does not say", ""
}

func TestTurns(t *testing.T) {
	mine := turnsOf(os.Getpid())
	if len(mine) == 0 {
		t.Skip("this kernel does not count")
	}
	if mine.ran(nil) == 0 || mine.ran(mine) != 0 || mine.longestWait(mine) != 0 {
		t.Errorf("%v", mine)
	}
}
