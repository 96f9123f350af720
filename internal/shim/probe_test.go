package shim

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
		pending: make(map[uint64]chan protocol.Reply), notices: make(chan machine.Notice, noticeRoom),
		lines: newLines(),
	}
	done := make(chan struct{})
	go func() { defer close(done); m.readFrames() }()
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
				hangs := probe.Target{Exec: func(ctx context.Context, _ machine.ExecRequest) (machine.ExecExit, error) {
					<-ctx.Done()
					return machine.ExecExit{}, context.Cause(ctx)
				}}
				var policy health.Policy
				json.Unmarshal(p.Policy, &policy)
				r, _ := json.Marshal(probe.Run(context.Background(), hangs, policy))
				protocol.WriteJSON(conn, protocol.KindReply, protocol.Reply{ID: req.ID, Result: r})
			}
		}()
		r := m.Probe(t.Context(), parsePolicy(t, `{"timeout":"1s","interval":"1s","exec":{"command":["x"]}}`))
		if r.Outcome != health.Failure || !strings.Contains(r.Reason, "timeout after 1s: the guest agent did not answer") {
			t.Errorf("%+v", r)
		}
	})
}

// A shim that does not answer is told as one, before health gives it up.
func TestSilentShim(t *testing.T) {
	for policy, patience := range map[string]time.Duration{
		`{"timeout":"1s","exec":{"command":["x"]}}`: 10 * time.Second,
		`{"timeout":"1s","tcp":{"port":80}}`:        3 * time.Second,
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
			r := m.Probe(t.Context(), parsePolicy(t, policy))
			if r.Outcome != health.Inconclusive || r.Cause != CauseShim || time.Since(begun) != patience {
				t.Errorf("%s: %+v after %v", policy, r, time.Since(begun))
			}
		})
	}
}
