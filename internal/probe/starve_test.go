package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

const (
	ms = time.Millisecond
	s  = time.Second
)

func TestExtension(t *testing.T) {
	for _, c := range []struct {
		timeout, lasted, wait time.Duration
		more                  time.Duration
		had                   bool
	}{
		{2 * s, 2 * s, 0, 0, true},
		{2 * s, 3 * s, 0, 0, true}, // the timer was late, and nobody waited
		{2 * s, 2 * s, 1, 1, false},
		{2 * s, 2 * s, 500 * ms, 500 * ms, false},
		{2 * s, 2 * s, 2 * s, 2 * s, false},
		{2 * s, 3 * s, 1 * s, 0, true},
		{2 * s, 3 * s, 1500 * ms, 500 * ms, false},
		{2 * s, 7 * s, 7 * s, 1 * s, false}, // four timeouts in all
		{2 * s, 8*s - 1, 8 * s, 1, false},
		{2 * s, 8 * s, 6*s + 1, 0, false},
		{2 * s, 8 * s, 6 * s, 0, true},
		{2 * s, 9 * s, 9 * s, 0, false},
		{2 * s, 9 * s, 7 * s, 0, true},
		{1 * ms, 50 * ms, 49 * ms, 0, true},
		{1 * ms, 2 * ms, 2 * ms, 1 * ms, false},
	} {
		if more, had := extension(c.timeout, c.lasted, c.wait), hadTime(c.timeout, c.lasted, c.wait); more != c.more || had != c.had {
			t.Errorf("%v, after %v of which %v were waited: %v more, had its time %v; want %v, %v", c.timeout, c.lasted, c.wait, more, had, c.more, c.had)
		}
	}
}

func TestStarvedExit(t *testing.T) {
	for _, c := range []struct {
		timeout, wait time.Duration
		want          bool
	}{
		{2 * s, s, false}, {2 * s, s + 1, true},
		{500 * ms, 250 * ms, false}, {500 * ms, 250*ms + 1, true},
		{100 * ms, 250 * ms, false}, {100 * ms, 251 * ms, true},
		{2 * s, 0, false},
	} {
		if got := starvedExit(c.timeout, c.wait); got != c.want {
			t.Errorf("timeout %v, wait %v: %v", c.timeout, c.wait, got)
		}
	}
}

// The lateness is that of all beats, that of the one which is due included, and of none before the probe began.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pulse
		t0 := time.Now()
		at := func(d, want time.Duration) {
			t.Helper()
			if got := p.at(t0.Add(d)); got != want {
				t.Errorf("at %v: %v late, want %v", d, got, want)
			}
		}
		if got := p.join(t0); got != 0 {
			t.Errorf("joined %v late", got)
		}
		at(0, 0)
		at(tick, 0)
		at(tick+30*ms, 30*ms) // before the first beat, too
		p.mu.Lock()
		p.beat(t0.Add(80 * ms))
		p.mu.Unlock()
		at(80*ms, 30*ms)
		at(130*ms, 30*ms)
		at(200*ms, 100*ms)
		if got := p.join(t0.Add(200 * ms)); got != 100*ms { // what was late before it began is not its own
			t.Errorf("the second joined at %v", got)
		}
		p.mu.Lock()
		p.beat(t0.Add(210 * ms))
		p.mu.Unlock()
		at(260*ms, 110*ms)
		p.leave()
		at(300*ms, 150*ms)
		p.leave()
		if p.timer != nil || p.users != 0 {
			t.Error("it beats for nobody")
		}
		p.join(t0.Add(s))
		at(s, 0)
		p.leave()
	})
}

// That timers may be late by will is nobody's starvation: it is taken off each beat, and what is beyond it counts.
func TestPulseOfSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pulse{slack: func() time.Duration { return 10 * ms }}
		now := time.Now()
		p.join(now)
		defer p.leave()
		for _, c := range []struct{ late, sum time.Duration }{{10 * ms, 0}, {9 * ms, 0}, {10*ms + 1, 1}, {35 * ms, 25*ms + 1}, {0, 25*ms + 1}} {
			now = now.Add(tick + c.late)
			if got := p.at(now); got != c.sum {
				t.Errorf("with a beat %v late: %v in all, want %v", c.late, got, c.sum)
			}
			p.mu.Lock()
			p.beat(now)
			p.mu.Unlock()
		}
	})
}

// A host that is not starved is not late, for as long as a probe takes, and nothing beats after it.
func TestPulseBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := thePulse.join(time.Now())
		time.Sleep(10*tick + tick/2)
		if got := thePulse.at(time.Now()) - begun; got != 0 {
			t.Errorf("%v late", got)
		}
		thePulse.leave()
	})
}

// delays is the run delay of processors that wait for a share of the time, in thousandths, beyond what they waited before.
func delays(permille ...int) func([]time.Duration) []time.Duration {
	start := time.Now()
	return func(to []time.Duration) []time.Duration {
		for i, n := range permille {
			to = append(to, time.Duration(len(permille)-i)*time.Hour+time.Since(start)*time.Duration(n)/1000)
		}
		return to
	}
}

// silent is a guest that takes connections and commands and never answers.
func silent() Target {
	return Target{
		Dial: func(context.Context, uint16) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		},
		Exec: func(context.Context, machine.ExecRequest) (Execution, error) {
			return &command{killed: make(chan struct{})}, nil
		},
	}
}

// A command is one that ends when it is killed, or by itself.
type command struct {
	ends   <-chan time.Time
	exit   machine.ExecExit
	killed chan struct{}
}

func (r *command) Kill(context.Context) error { close(r.killed); return nil }
func (r *command) Close() error               { return nil }
func (r *command) Wait(ctx context.Context) (machine.ExecExit, error) {
	select {
	case <-r.killed:
		return machine.ExecExit{Code: 137, Signal: "SIGKILL", Output: []byte("so far")}, nil
	case <-r.ends:
		return r.exit, nil
	case <-ctx.Done():
		return machine.ExecExit{}, context.Cause(ctx)
	}
}

// Each kind of check goes on for what the host kept from it, and no longer.
func TestStarvedProbes(t *testing.T) {
	for check, what := range map[string]string{
		`"http":{"port":80}`:                  "no answer to GET /",
		`"http":{"port":80,"scheme":"https"}`: "in the TLS handshake",
		`"grpc":{"port":80}`:                  "no answer to the gRPC call",
		`"exec":{"command":["x"]}`:            "the command was killed",
		`"tcp":{"port":80}`:                   "no connection to port 80",
	} {
		for _, c := range []struct {
			waits   []int // thousandths of the time
			outcome health.Outcome
			took    time.Duration
		}{
			{nil, health.Failure, 2 * s},
			{[]int{0}, health.Failure, 2 * s},
			{[]int{500}, health.Failure, 4 * s},
			{[]int{600}, health.Failure, 5 * s},         // a server that hangs beside two busy loops is found out
			{[]int{0, 500, 200}, health.Failure, 4 * s}, // the one that waited most, whatever they waited before
			{[]int{800}, health.Inconclusive, 8 * s},
			{[]int{1000}, health.Inconclusive, 8 * s},
		} {
			synctest.Test(t, func(t *testing.T) {
				target := silent()
				if strings.Contains(check, "tcp") {
					target.Dial = func(ctx context.Context, _ uint16) (net.Conn, error) { <-ctx.Done(); return nil, context.Cause(ctx) }
				}
				if c.waits != nil {
					target.RunDelay = delays(c.waits...)
				}
				r := Run(t.Context(), target, policy(t, `{"timeout":"2s",%s}`, check))
				name := fmt.Sprint(check, c.waits)
				// The extension nears its end in steps that are never below a millisecond.
				if r.Outcome != c.outcome || r.Duration < c.took || r.Duration > c.took+20*ms || r.Definite || !strings.Contains(r.Reason, what) && r.Outcome == health.Failure {
					t.Errorf("%s: %s after %v: %s", name, r.Outcome, r.Duration, r.Reason)
				}
				switch r.Outcome {
				case health.Failure:
					if !strings.HasPrefix(r.Reason, "timeout after 2s: ") {
						t.Errorf("%s: %s", name, r.Reason)
					}
				case health.Inconclusive:
					if r.Cause != health.CauseStarved || !strings.Contains(r.Reason, "did not have its timeout of 2s") || r.Wait < 6*s {
						t.Errorf("%s: %+v", name, r)
					}
				}
			})
		}
	}
}

// An answer counts as it comes, however late a starved host made it.
func TestLateAnswer(t *testing.T) {
	for at, want := range map[time.Duration]health.Outcome{1900 * ms: health.Success, 7900 * ms: health.Success, 8100 * ms: health.Inconclusive} {
		synctest.Test(t, func(t *testing.T) {
			target := Target{
				RunDelay: delays(1000),
				Dial: func(ctx context.Context, _ uint16) (net.Conn, error) {
					select {
					case <-time.After(at):
						ours, theirs := net.Pipe()
						theirs.Close()
						return ours, nil
					case <-ctx.Done():
						return nil, context.Cause(ctx)
					}
				},
			}
			if r := Run(t.Context(), target, policy(t, `{"timeout":"2s","tcp":{"port":80}}`)); r.Outcome != want {
				t.Errorf("an answer after %v: %+v", at, r)
			}
		})
	}
}

// This process may have been kept from running itself: what came meanwhile is looked at before it is called a timeout.
func TestLateTimer(t *testing.T) {
	for at, want := range map[time.Duration]health.Outcome{1505 * ms: health.Success, 1520 * ms: health.Failure} {
		synctest.Test(t, func(t *testing.T) {
			slow := func(to []time.Duration) []time.Duration { time.Sleep(500 * ms); return to }
			once := func(to []time.Duration) []time.Duration {
				f := slow
				slow = func(to []time.Duration) []time.Duration { return to }
				return f(to)
			}
			begun := time.Now()
			target := Target{
				RunDelay: once, // which puts the timer off
				Dial: func(ctx context.Context, _ uint16) (net.Conn, error) {
					select {
					case <-time.After(time.Until(begun.Add(at))):
						ours, theirs := net.Pipe()
						theirs.Close()
						return ours, nil
					case <-ctx.Done():
						return nil, context.Cause(ctx)
					}
				},
			}
			if r := Run(t.Context(), target, policy(t, `{"timeout":"1s","tcp":{"port":80}}`)); r.Outcome != want {
				t.Errorf("an answer after %v: %+v", at, r)
			}
		})
	}
}

// A command that fails while the host is starved says nothing: what it asked may have had a timeout of its own.
func TestStarvedExits(t *testing.T) {
	for _, c := range []struct {
		waits   int
		exit    machine.ExecExit
		outcome health.Outcome
		reason  string
	}{
		{0, machine.ExecExit{Code: 1, Output: []byte("late")}, health.Failure, "exit code 1: late"},
		{500, machine.ExecExit{Code: 1}, health.Failure, "exit code 1"}, // a second and a half of two are lost, not more than half the timeout of three
		{800, machine.ExecExit{Code: 1, Output: []byte("late")}, health.Inconclusive, "exit code 1: late, while the host was starved and kept 1.6s from it"},
		{800, machine.ExecExit{Code: 143, Signal: "SIGTERM"}, health.Inconclusive, "killed by SIGTERM, while"},
		{800, machine.ExecExit{Code: 127, Error: "no such file"}, health.Failure, "command not found"},
		{800, machine.ExecExit{}, health.Success, "exit code 0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			target := Target{
				RunDelay: delays(c.waits),
				Exec: func(context.Context, machine.ExecRequest) (Execution, error) {
					return &command{ends: time.After(2 * s), exit: c.exit, killed: make(chan struct{})}, nil
				},
			}
			r := Run(t.Context(), target, policy(t, `{"timeout":"3s","exec":{"command":["x"]}}`))
			if r.Outcome != c.outcome || !strings.HasPrefix(r.Reason, c.reason) || r.Outcome == health.Inconclusive && r.Cause != health.CauseStarved {
				t.Errorf("%+v: %+v", c, r)
			}
		})
	}
}

// The end of an exec's time: what it wrote is kept, one that ends at the last moment has answered, and an agent that does not answer
// is told of as such.
func TestExecTimeout(t *testing.T) {
	for _, c := range []struct {
		name   string
		e      func() Execution
		took   time.Duration
		want   health.Outcome
		reason string
		output string
	}{
		{"killed", func() Execution { return &command{killed: make(chan struct{})} }, 2 * s, health.Failure, "timeout after 2s: the command was killed", "so far"},
		{"answers after all", func() Execution { return lastMoment{} }, 2 * s, health.Success, "exit code 0", ""},
		{"hangs", func() Execution { return hanging{} }, 9 * s, health.Failure, "timeout after 2s: the guest agent did not answer", ""},
		{"lost", func() Execution { return lost{} }, 2 * s, health.Inconclusive, ErrNoAgent.Error(), ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			target := Target{Exec: func(context.Context, machine.ExecRequest) (Execution, error) { return c.e(), nil }}
			r := Run(t.Context(), target, policy(t, `{"timeout":"2s","exec":{"command":["x"]}}`))
			if r.Outcome != c.want || r.Reason != c.reason || r.Output != c.output || time.Since(begun) != c.took {
				t.Errorf("%s: %+v after %v", c.name, r, time.Since(begun))
			}
		})
	}
}

type hanging struct{}

func (hanging) Kill(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
func (hanging) Close() error                   { return nil }
func (hanging) Wait(ctx context.Context) (machine.ExecExit, error) {
	<-ctx.Done()
	return machine.ExecExit{}, context.Cause(ctx)
}

type lost struct{ hanging }

func (lost) Kill(context.Context) error { return ErrNoAgent }
func (lost) Wait(ctx context.Context) (machine.ExecExit, error) {
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), errTimeout) {
		return machine.ExecExit{}, ErrNoAgent
	}
	return machine.ExecExit{}, context.Cause(ctx)
}

type lastMoment struct{ hanging }

func (lastMoment) Kill(context.Context) error { return errors.New("it has ended") }
func (lastMoment) Wait(ctx context.Context) (machine.ExecExit, error) {
	if _, ok := ctx.Deadline(); ok { // after it was killed
		return machine.ExecExit{}, nil
	}
	<-ctx.Done()
	return machine.ExecExit{}, context.Cause(ctx)
}

// Begun is called when the command runs, or the handshake is done; not for what came not so far, or costs nothing.
func TestBegun(t *testing.T) {
	begun := 0
	target := Target{
		Begun: func() { begun++ },
		Exec:  func(context.Context, machine.ExecRequest) (Execution, error) { return ended{}, nil },
	}
	Run(t.Context(), target, policy(t, `{"exec":{"command":["x"]}}`))
	if begun != 1 {
		t.Errorf("exec: %d", begun)
	}
	target.Exec = func(context.Context, machine.ExecRequest) (Execution, error) { return nil, ErrNoAgent }
	Run(t.Context(), target, policy(t, `{"exec":{"command":["x"]}}`))
	target.Dial = loopback.Dial
	Run(t.Context(), target, policy(t, `{"http":{"port":%d}}`, says(t, "HTTP/1.1 200 OK\r\n\r\n")))
	Run(t.Context(), target, policy(t, `{"http":{"port":%d,"scheme":"https"}}`, says(t, "HTTP/1.1 200 OK\r\n\r\n")))
	if begun != 1 {
		t.Errorf("after those that do not begin: %d", begun)
	}
}

// A refusal on a port that the guest listens on at its loopback address only says so, and only then.
func TestRefusedOnLoopback(t *testing.T) {
	target := loopback
	port := closedPort(t)
	for _, only := range []bool{true, false} {
		target.Loopback = func(p uint16) bool { return only && int(p) == port }
		r := Run(t.Context(), target, policy(t, `{"http":{"port":%d}}`, port))
		if !r.Definite || strings.Contains(r.Reason, "listens on it only at the guest's own 127.0.0.1") != only {
			t.Errorf("only on loopback %v: %+v", only, r)
		}
	}
}

func BenchmarkSpan(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Target{}.begin(context.Background(), time.Now(), s).end()
	}
}

// Whoever waits with a probe's time learns of its end, whatever ends it, and why; one who comes afterwards, too.
func TestPatience(t *testing.T) {
	gaveUp := errors.New("the instance stopped")
	for name, c := range map[string]struct {
		end  func(*span, context.CancelCauseFunc)
		want error
	}{
		"its time is over":        {func(*span, context.CancelCauseFunc) { time.Sleep(2 * time.Second) }, errTimeout},
		"who asked gives up":      {func(_ *span, cancel context.CancelCauseFunc) { cancel(gaveUp) }, gaveUp},
		"there is a verdict":      {func(s *span, _ context.CancelCauseFunc) { s.end() }, context.Canceled},
		"it is drained, and over": {func(s *span, _ context.CancelCauseFunc) { s.drain(); s.end() }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				s := Target{}.begin(ctx, time.Now(), time.Second)
				p := patience{s}
				over := p.Done()
				child, cancelChild := context.WithCancel(p)
				defer cancelChild()
				if p.Err() != nil || child.Err() != nil {
					t.Fatalf("before its end: %v, %v", p.Err(), child.Err())
				}
				c.end(s, cancel)
				<-over
				<-child.Done()
				if p.Err() == nil || child.Err() == nil || context.Cause(p) != c.want {
					t.Errorf("%v of %v, and of what depends on it %v; want %v", p.Err(), context.Cause(p), child.Err(), c.want)
				}
				<-patience{s}.Done()
				s.mu.Lock()
				ended := s.state == done
				s.mu.Unlock()
				if !ended {
					s.end()
				}
			})
		})
	}
}
