package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/probe"
	"github.com/halevm/hale/internal/shim/protocol"
)

// talk returns the daemon's side of a shim whose other side is conn. Nothing but frames is looked after.
func talk(t *testing.T) (m *Machine, conn net.Conn) {
	ours, conn := net.Pipe()
	m = &Machine{
		log: slog.New(slog.DiscardHandler), conn: ours,
		pending: make(map[uint64]pending), notices: make(chan machine.Notice, noticeRoom),
		lines: newRate(lineBurst, lineEvery),
	}
	done := make(chan struct{})
	go func() { defer close(done); m.readFrames(); m.hangUp() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return m, conn
}

func parsePolicy(t *testing.T, s string) health.Policy {
	t.Helper()
	p, err := health.Parse(json.RawMessage(s))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A guest that hangs is the guest's failure: the shim, which waits for its agent, is given the time to say so.
func TestHungGuestIsNotTheShimsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, conn := talk(t)
		go func() {
			for {
				kind, payload, err := protocol.Read(conn)
				if err != nil {
					return
				}
				var req protocol.Request
				if kind != protocol.KindRequest || json.Unmarshal(payload, &req) != nil {
					continue
				}
				var p protocol.Probe
				json.Unmarshal(req.Params, &p)
				hangs := probe.Target{Exec: func(ctx context.Context, _ machine.ExecRequest) (probe.Execution, error) {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}}
				var policy health.Policy
				json.Unmarshal(p.Policy, &policy)
				r, _ := json.Marshal(probe.Run(context.Background(), hangs, policy))
				protocol.WriteJSON(conn, protocol.KindReply, protocol.Reply{ID: req.ID, Result: r})
			}
		}()
		r := m.Probe(t.Context(), parsePolicy(t, `{"timeout":"1s","interval":"1s","exec":{"command":["x"]}}`), nil)
		if r.Outcome != health.Failure || !strings.Contains(r.Reason, "timeout after 1s: the guest agent did not answer") {
			t.Errorf("%+v", r)
		}
	})
}

// A shim that does not answer is told as one, before health gives it up.
func TestSilentShim(t *testing.T) {
	for policy, patience := range map[string]time.Duration{
		`{"timeout":"1s","exec":{"command":["x"]}}`: 13 * time.Second,
		`{"timeout":"1s","tcp":{"port":80}}`:        6 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			m, conn := talk(t)
			go func() {
				for {
					if _, _, err := protocol.Read(conn); err != nil {
						return
					}
				}
			}()
			begun := time.Now()
			r := m.Probe(t.Context(), parsePolicy(t, policy), nil)
			if r.Outcome != health.Inconclusive || r.Cause != health.CauseShim || time.Since(begun) != patience {
				t.Errorf("%s: %+v after %v", policy, r, time.Since(begun))
			}
		})
	}
}

// A probe's beginning is passed on, once, and before its result.
func TestProbeHasBegun(t *testing.T) {
	m, conn := talk(t)
	begun := 0
	go func() {
		kind, payload, err := protocol.Read(conn)
		var req protocol.Request
		if err != nil || kind != protocol.KindRequest || json.Unmarshal(payload, &req) != nil {
			return
		}
		for _, id := range []uint64{req.ID + 7, req.ID, req.ID} { // a shim may say more than it should
			protocol.WriteJSON(conn, protocol.KindBegun, protocol.Begun{ID: id})
		}
		protocol.WriteJSON(conn, protocol.KindReply, protocol.Reply{ID: req.ID, Result: json.RawMessage(`{"outcome":"success"}`)})
	}()
	r := m.Probe(t.Context(), parsePolicy(t, `{"tcp":{"port":80}}`), func() { begun++ })
	if r.Outcome != health.Success || begun != 1 {
		t.Errorf("%+v, and begun %d times", r, begun)
	}
}

// Of what keeps a check's command from being started, package probe knows what is the host's.
func TestMissing(t *testing.T) {
	for err, want := range map[error]error{guest.ErrNotConnected: probe.ErrNoAgent, guest.ErrTooMany: probe.ErrTooMany, guest.ErrTooLarge: guest.ErrTooLarge} {
		if got := missing(fmt.Errorf("exec: %w", err)); !errors.Is(got, want) {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// slowToEnd answers requests, but not before so long after their Cancel; <0: never.
func slowToEnd(conn net.Conn, after time.Duration) {
	for {
		kind, payload, err := protocol.Read(conn)
		if err != nil {
			return
		}
		var c protocol.Cancel
		if kind == protocol.KindCancel && json.Unmarshal(payload, &c) == nil && after >= 0 {
			time.AfterFunc(after, func() {
				protocol.WriteJSON(conn, protocol.KindReply, protocol.Reply{ID: c.ID, Result: json.RawMessage(`{"outcome":"failure"}`)})
			})
		}
	}
}

// A probe that is withdrawn is over when the shim says so, for the next one begins then; a shim that does not is waited for as long as
// clearing up may take. Nothing else that is asked waits with it.
func TestAWithdrawnProbeIsWaitedFor(t *testing.T) {
	const exec, tcp = `{"timeout":"20s","interval":"20s","exec":{"command":["x"]}}`, `{"timeout":"20s","interval":"20s","tcp":{"port":80}}`
	for name, c := range map[string]struct {
		policy        string
		answers, took time.Duration
	}{
		"an exec":                 {exec, 3 * time.Second, 3 * time.Second},
		"an exec that hangs":      {exec, -1, probe.ExecCleanup + probeMargin},
		"a connection":            {tcp, time.Millisecond, time.Millisecond},
		"a connection that hangs": {tcp, -1, probeMargin},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, conn := talk(t)
				go slowToEnd(conn, c.answers)
				ctx, cancel := context.WithCancel(t.Context())
				withdrawn := time.Now().Add(time.Second)
				time.AfterFunc(time.Second, cancel)
				r := m.Probe(ctx, parsePolicy(t, c.policy), nil)
				if r.Outcome != health.Inconclusive || r.Cause != health.CauseCutShort || time.Since(withdrawn) != c.took {
					t.Errorf("%+v, %v after it was withdrawn, want %v", r, time.Since(withdrawn), c.took)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		m, conn := talk(t)
		go slowToEnd(conn, -1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		probed := make(chan struct{})
		go func() { defer close(probed); m.Probe(ctx, parsePolicy(t, exec), nil) }()
		synctest.Wait()
		begun := time.Now()
		if _, err := m.Stat(ctx, "/", true); err == nil || time.Since(begun) != 0 {
			t.Errorf("a look at a path that was withdrawn: %v after %v", err, time.Since(begun))
		}
		conn.Close() // as when the machine is killed
		if <-probed; time.Since(begun) != 0 {
			t.Errorf("the probe of a machine that is gone is waited for for %v", time.Since(begun))
		}
	})
}

// What is asked is the policy of this probe, also after one with another.
func TestEachProbeHasItsPolicy(t *testing.T) {
	m, conn := talk(t)
	asked := make(chan health.Policy)
	go func() {
		for {
			_, payload, err := protocol.Read(conn)
			if err != nil {
				return
			}
			var req protocol.Request
			var p protocol.Probe
			var policy health.Policy
			if json.Unmarshal(payload, &req) != nil || json.Unmarshal(req.Params, &p) != nil || json.Unmarshal(p.Policy, &policy) != nil {
				return
			}
			asked <- policy
			if protocol.WriteJSON(conn, protocol.KindReply, protocol.Reply{ID: req.ID, Result: json.RawMessage(`{"outcome":"success"}`)}) != nil {
				return
			}
		}
	}()
	for _, check := range []string{`{"tcp":{"port":80}}`, `{"tcp":{"port":80}}`, `{"tcp":{"port":81}}`, `{"http":{"port":80,"headers":{"a":"b"}}}`, `{"http":{"port":80,"headers":{"a":"c"}}}`, `{"tcp":{"port":80}}`} {
		want := parsePolicy(t, check)
		answered := make(chan health.Result, 1)
		go func() { answered <- m.Probe(t.Context(), want, nil) }()
		select {
		case got := <-asked:
			if !got.Equal(want) {
				t.Errorf("%s: %+v is asked", check, got)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: nothing is asked", check)
		}
		if r := <-answered; r.Outcome != health.Success {
			t.Errorf("%s: %+v", check, r)
		}
	}
}
