package health

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Where only the wall clock tells of the entry into Running, and was set forward since, what the record knows, and the boot, bound what that
// costs of the grace; and no record holds a time from before the boot.
func TestAStepOfTheClockCostsNoGrace(t *testing.T) {
	const policy = `{"interval":"1s","start_period":"30s","start_interval":"1s","failure_threshold":1,"tcp":{"port":80}}`
	for name, c := range map[string]struct {
		restarts bool
		step     time.Duration
		grace    time.Duration // from the entry; what is said to be before the record says that it was on its way is taken for that moment, 2 s earlier
	}{
		"by the record":                  {restarts: true, step: 20 * time.Minute, grace: 28 * time.Second},
		"a step beyond the boot":         {step: 3 * time.Hour},
		"no step, and told late":         {grace: 30 * time.Second},
		"no step, after a restart, late": {restarts: true, grace: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.answers(bad, ms)
				sync := func(phase Phase, entered time.Time) {
					b.Sync(Observed{ID: "a", Run: 1, Phase: phase, Policy: mustParse(t, policy), Entered: entered})
				}
				sync(Initializing, time.Now())
				if c.restarts {
					b.close()
					b.open()
				}
				time.Sleep(2 * time.Second)
				entered := time.Now()
				time.Sleep(time.Second)
				sync(Running, entered.Round(0).Add(-c.step))
				if c.grace > 0 {
					time.Sleep(c.grace - time.Since(entered) - 10*ms)
					b.is(StatusStarting)
				}
				time.Sleep(3 * time.Second)
				b.is(StatusUnhealthy)
				b.close()
				b.open()
				b.Sync(Observed{ID: "a", Run: 1, Phase: Running, Policy: mustParse(t, policy), Entered: entered})
				if s := b.is(StatusUnhealthy); len(s.Results) == 0 || strings.Contains(b.log.String(), "set aside") {
					t.Errorf("%+v, log %s", s, b.log)
				}
			})
		})
	}
}

// Where no record knows, the boot alone bounds it: a grace that is longer than the host is up is not over.
func TestNothingRanBeforeTheBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t) // an hour after the boot
		b.answers(bad, ms)
		b.Sync(Observed{ID: "a", Run: 1, Phase: Running, Entered: time.Now().Round(0).Add(-3 * time.Hour),
			Policy: mustParse(t, `{"interval":"1m","start_period":"90m","start_interval":"1m","failure_threshold":1,"tcp":{"port":80}}`)})
		time.Sleep(29 * time.Minute)
		b.is(StatusStarting)
		time.Sleep(3 * time.Minute)
		b.is(StatusUnhealthy)
	})
}

// What an earlier version made of a clock that was set is read as the boot.
func TestARecordFromBeforeTheBoot(t *testing.T) {
	c := clock{bootID: "b", origin: epoch, uptime: time.Hour}
	s := State{Run: 1, Window: 1, Phase: Running, Status: StatusHealthy, Verdict: StatusHealthy, Entered: epoch.Add(-2 * time.Hour), Since: epoch}
	blob, err := encoded(c, mustParse(t, pacedPolicy), s, new(history))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(blob, &fields); err != nil || fields["entered_uptime"] != 1.0 {
		t.Errorf("%s, %v", blob, err)
	}
	older := strings.Replace(string(blob), `"entered_uptime":1`, `"entered_uptime":-3600000000000`, 1)
	_, got, _, err := decode(c, []byte(older))
	if err != nil || !got.Entered.Equal(c.boot()) || got.Status != StatusHealthy {
		t.Errorf("%+v, %v", got, err)
	}
}
