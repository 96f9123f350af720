package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/server"
)

func (a asker) wait(query string) (got api.WaitForStateResponse, took time.Duration) {
	a.t.Helper()
	r := httptest.NewRequest("GET", "/instances/web/wait?"+query, http.NoBody).WithContext(a.t.Context())
	r.Header.Set("Authorization", "Bearer "+a.w.bearer)
	rec := httptest.NewRecorder()
	start := time.Now()
	a.ServeHTTP(rec, r)
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		a.t.Fatalf("%s: %v", rec.Body, err)
	}
	return got, time.Since(start)
}

func (a asker) make(check string) {
	a.t.Helper()
	if got := a.ask("POST", "/instances", `{"name":"web","image":"localhost:5000/app:v1","health_check":`+check+`}`); got.status != http.StatusCreated {
		a.t.Fatalf("%+v", got)
	}
}

// Who waits for an instance that health does not know yet sleeps meanwhile (in a bubble no time passes else), and learns of it once it does.
func TestAWaitBeforeHealthKnows(t *testing.T) {
	var knows func()
	inBubble(t, func(t *testing.T, a asker, _ *slowRegistry) {
		a.make(`{"tcp":{"port":80},"interval":"1s"}`)
		if got, took := a.wait("health=healthy&timeout=20s"); !got.TimedOut || took != 20*time.Second || got.HealthStatus.Status != api.HealthStateStarting {
			t.Errorf("%+v after %v", got, took)
		}
		time.AfterFunc(7*time.Second, knows)
		if got, took := a.wait("health=healthy&timeout=20s"); got.TimedOut || took < 7*time.Second || took > 8*time.Second || got.HealthStatus.Status != api.HealthStateHealthy {
			t.Errorf("%+v after %v", got, took)
		}
	}, func(c *server.Config) {
		settled := c.Settled
		knows = func() { settled(context.Background(), "") }
		c.Settled = func(context.Context, string) {}
	})
}

// A wait on a stale instance asks for a probe, also where it is as wanted.
func TestAWaitOnAStaleInstanceAsks(t *testing.T) {
	const check = `{"tcp":{"port":80},"interval":"10m","start_period":"0s","failure_threshold":1}`
	for name, c := range map[string]struct {
		found health.Result
		wait  string
	}{
		"unhealthy":             {health.Result{Outcome: health.Failure, Reason: "no"}, "health=unhealthy"},
		"healthy":               {health.Result{Outcome: health.Success}, "health=healthy"},
		"a goal it has not met": {health.Result{Outcome: health.Failure, Reason: "no"}, "health=healthy"},
	} {
		t.Run(name, func(t *testing.T) {
			var known atomic.Bool
			var probes atomic.Int32
			var checks *health.Set
			inBubble(t, func(t *testing.T, a asker, _ *slowRegistry) {
				defer func() {
					if err := checks.Close(context.Background()); err != nil {
						t.Error(err)
					}
				}()
				known.Store(true)
				a.make(check)
				time.Sleep(time.Minute) // it runs, and was probed
				a.wait("state=Running")
				synctest.Wait()
				known.Store(false)
				time.Sleep(45 * time.Minute) // less than the token lasts
				before := probes.Load()
				known.Store(true)
				got, took := a.wait(c.wait + "&timeout=1s")
				synctest.Wait()
				if n := probes.Load() - before; n != 1 || got.HealthStatus == nil || c.wait == "health=unhealthy" && (took != 0 || !got.HealthStatus.Stale) {
					t.Errorf("%d probes, %+v after %v", n, got, took)
				}
			}, func(conf *server.Config) {
				set := conf.Instances
				checks = health.NewSet(health.Config{Journal: journal{}, Probe: func(context.Context, string, health.Policy, func()) health.Result {
					probes.Add(1)
					if !known.Load() {
						return health.Result{Outcome: health.Inconclusive, Cause: health.CauseStarved}
					}
					return c.found
				}})
				conf.Health = checks
				conf.Settled = func(context.Context, string) {
					for _, in := range set.List() {
						if in.State != instance.Created {
							checks.Sync(observed(in))
						}
					}
				}
			})
		})
	}
}
