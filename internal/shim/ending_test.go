package shim

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/guest"
	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// fakeGuest connects r to an agent that is asked by requests. answer is called with each, one after the other, and may say something.
func fakeGuest(t *testing.T, answer func(req guestprotocol.Request, say func(guestprotocol.Type, any))) *run {
	ours, theirs := net.Pipe()
	bulk, theirBulk := net.Pipe()
	r := &run{log: slog.New(slog.DiscardHandler)}
	r.agent = guest.Open(ours, bulk, guest.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := guestprotocol.NewReader(theirs)
		out := guestprotocol.NewWriter(theirs)
		defer out.Close()
		for {
			f, err := in.Next()
			if err != nil {
				return
			}
			say := func(k guestprotocol.Type, v any) {
				if f, err := guestprotocol.JSON(k, f.Session, v); err == nil {
					out.Send(t.Context(), f)
				}
			}
			switch f.Type {
			case guestprotocol.TypeHello:
				say(guestprotocol.TypeWelcome, guestprotocol.Welcome{Version: 1, State: guestprotocol.State{Booted: true, Started: true}})
			case guestprotocol.TypeRequest:
				var req guestprotocol.Request
				if json.Unmarshal(f.Payload, &req) == nil {
					answer(req, say)
				}
			}
		}
	}()
	t.Cleanup(func() { theirs.Close(); theirBulk.Close(); r.agent.Close(); <-done })
	if e := <-r.agent.Events(); e.Kind != guest.Hello {
		t.Fatalf("%+v", e)
	}
	return r
}

// A guest that says whether its program is ending, when it is asked; what it says comes from says, and nothing while that is empty.
func endingGuest(t *testing.T, says <-chan bool) (*run, func() int) {
	asked := 0
	r := fakeGuest(t, func(req guestprotocol.Request, say func(guestprotocol.Type, any)) {
		if req.Op != guestprotocol.OpEnding {
			return
		}
		asked++
		select {
		case ends := <-says:
			body, _ := json.Marshal(guestprotocol.Ending{Ending: ends})
			say(guestprotocol.TypeReply, guestprotocol.Reply{ID: req.ID, Body: body})
		default:
		}
	})
	return r, func() int { synctest.Wait(); return asked }
}

func TestUnlessEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		says := make(chan bool, 1)
		r, asked := endingGuest(t, says)
		failed := health.Result{Outcome: health.Failure, Reason: "closed", Definite: true, Start: time.Now(), Duration: time.Second}
		same := func(what string, found health.Result, n int) {
			t.Helper()
			if got := r.unlessEnding(t.Context(), found); got != found || asked() != n {
				t.Errorf("%s: %+v, asked %d times", what, got, asked())
			}
		}
		same("not started", failed, 0)
		r.lives(started)
		same("a success", health.Result{Outcome: health.Success}, 0)
		same("a host without room", health.Result{Outcome: health.Inconclusive, Cause: health.CauseResources}, 0)
		says <- false
		same("it goes on", failed, 1)
		began := time.Now()
		same("no answer", failed, 2)
		if took := time.Since(began); took != endingPatience {
			t.Errorf("an answer was waited for for %v", took)
		}
		for n := range 2 { // the first is no last word: only the end itself is
			says <- true
			got := r.unlessEnding(t.Context(), failed)
			if got.Outcome != health.Inconclusive || got.Cause != health.CauseCutShort || got.Definite || got.Duration != time.Second || asked() != 3+2*n {
				t.Errorf("it ends: %+v, asked %d times", got, asked())
			}
			says <- false
			same("and does not", failed, 4+2*n)
		}
		r.lives(over)
		r.lives(started)
		for _, found := range []health.Result{failed, {Outcome: health.Inconclusive, Cause: health.CauseNoAgent}} {
			if got := r.unlessEnding(t.Context(), found); got.Outcome != health.Inconclusive || got.Cause != health.CauseCutShort || asked() != 6 {
				t.Errorf("it is over: %+v, asked %d times", got, asked())
			}
		}
		same("a host without room", health.Result{Outcome: health.Inconclusive, Cause: health.CauseResources}, 6)
	})
}

// Whoever wants to run a command in a guest that is coming up, or to look at a path, is told to wait, and what the agent refuses is no fault of ours.
func TestRefusedByTheGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeGuest(t, func(req guestprotocol.Request, say func(guestprotocol.Type, any)) {
			say(guestprotocol.TypeReply, guestprotocol.Reply{ID: req.ID, Error: "64 commands run already"})
		})
		for _, c := range []struct {
			life programLife
			argv []string
			want api.Kind
			says string
		}{
			{notStarted, []string{"x"}, api.InvalidState, "still booting"},
			{started, []string{"x"}, api.Unavailable, "64 commands run already"},
			{started, []string{strings.Repeat("x", guestprotocol.MaxPayload)}, api.Invalid, "too large"},
		} {
			if r.lives(c.life); c.life == notStarted {
				if _, err := r.handle(t.Context(), protocol.MethodStat, []byte(`{"path":"/etc/passwd"}`), nil); !errors.Is(err, c.want) {
					t.Errorf("a look at a path: %v", err)
				}
			}
			if _, err := r.exec(t.Context(), machine.ExecRequest{Argv: c.argv}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, not %s", err, c.want)
			}
		}
	})
}
