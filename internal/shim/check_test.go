package shim

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/probe"
	"github.com/halevm/hale/internal/shim/protocol"
)

// A shim says nothing of a probe that was withdrawn before the guest has no more of its command: the next one would be refused.
func TestAWithdrawnCheckIsGoneBeforeItsReply(t *testing.T) {
	const starts, dies = 3 * time.Second, 2 * time.Second
	for name, c := range map[string]struct {
		after, took time.Duration // of the request
		dies        bool
	}{
		"while it runs":               {5 * time.Second, dies, true},
		"while it is being started":   {time.Second, starts - time.Second + dies, true},
		"and nothing can kill it":     {5 * time.Second, probe.ExecCleanup, false},
		"and neither start nor kill":  {time.Second, probe.ExecCleanup, false},
		"after it has had its time":   {20500 * time.Millisecond, 20*time.Second + dies - 20500*time.Millisecond, true},
		"and is already being killed": {21 * time.Second, dies - time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []guestprotocol.Op
				killed := false
				r := fakeGuest(t, func(req guestprotocol.Request, say func(guestprotocol.Type, any)) {
					asked = append(asked, req.Op)
					reply := func() { say(guestprotocol.TypeReply, guestprotocol.Reply{ID: req.ID}) }
					switch req.Op {
					case guestprotocol.OpExec:
						time.AfterFunc(starts, reply)
					case guestprotocol.OpSignal:
						reply()
						if c.dies && !killed {
							time.AfterFunc(dies, func() {
								say(guestprotocol.TypeExecExited, guestprotocol.ExecExited{Exec: 1, Exit: machine.ExecExit{Code: 137, Signal: "SIGKILL"}})
							})
						}
						killed = true
					}
				})
				r.disk, r.booted = newDiskFull(nil, nil), true
				policy, _ := json.Marshal(parsePolicy(t, `{"timeout":"20s","interval":"20s","exec":{"command":["x"]}}`))
				params, _ := json.Marshal(protocol.Probe{Policy: policy})
				ctx, cancel := context.WithCancel(t.Context())
				withdrawn := time.Now().Add(c.after)
				time.AfterFunc(c.after, cancel)
				found, err := r.probe(ctx, params, func() {})
				if err != nil || found.Outcome != health.Inconclusive || found.Cause != health.CauseCutShort {
					t.Errorf("%+v, %v", found, err)
				}
				if took := time.Since(withdrawn); took != c.took {
					t.Errorf("the reply came %v after the request was withdrawn, want %v", took, c.took)
				}
				synctest.Wait()
				if asked[0] != guestprotocol.OpExec || !slices.Contains(asked, guestprotocol.OpSignal) {
					t.Errorf("the guest was asked to %v", asked)
				}
			})
		})
	}
}
