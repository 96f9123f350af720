package health

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// encoded is the record of a policy, a state and a history.
func encoded(c clock, p Policy, s State, h *history) ([]byte, error) {
	policy, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return encode(nil, c, string(policy), &s, h), nil
}

// BenchmarkRecord is one write of a record, encoding only: of an instance that was always well, and of one that turned often.
func BenchmarkRecord(b *testing.B) {
	for name, transitions := range map[string]int{"steady": 2, "turned": keep} {
		b.Run(name, func(b *testing.B) { benchmarkRecord(b, transitions) })
	}
}

func benchmarkRecord(b *testing.B, transitions int) {
	var h history
	for range keep {
		h.addResult(WindowResult{Result: Result{Start: time.Now(), Duration: 1_234_567, Outcome: Success, Reason: "status 200"}, Window: 1})
	}
	for range transitions {
		h.addTransition(Transition{Time: time.Now(), From: StatusHealthy, To: StatusUnhealthy, Reason: "timeout after 2s: no answer to GET /healthz"})
	}
	written, err := json.Marshal(mustParse(b, `{"http":{"port":80}}`))
	if err != nil {
		b.Fatal(err)
	}
	policy := string(written)
	c := newClock(hostBoot(nil))
	b.ReportAllocs()
	var room []byte
	for b.Loop() {
		room = encode(room[:0], c, policy, &State{}, &h)
	}
}

// A record is written as encoding/json would write it, to the byte.
func TestEncoded(t *testing.T) {
	c := clock{bootID: "b", origin: epoch, uptime: time.Hour}
	text := rapid.OneOf(rapid.Just(""), rapid.Just("status 200"), rapid.String())
	number := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 1<<40))
	status := rapid.SampledFrom(append([]Status{""}, statuses...))
	policies := []Policy{{}, mustParse(t, `{"type":"none"}`), mustParse(t, `{"http":{"port":80,"path":"/<&>"}}`)}
	rapid.Check(t, func(t *rapid.T) {
		when := func(name string) time.Time {
			if rapid.Bool().Draw(t, name+" is zero") {
				return time.Time{}
			}
			return epoch.Add(time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, name)))
		}
		span := func(name string) time.Duration { return time.Duration(number.Draw(t, name)) }
		s := State{
			Run: uint64(number.Draw(t, "run")), Window: uint64(number.Draw(t, "window")), Phase: Phase(rapid.IntRange(0, 2).Draw(t, "phase")),
			Agent: rapid.Bool().Draw(t, "agent"), Network: rapid.Bool().Draw(t, "network"),
			Status: status.Draw(t, "status"), Last: status.Draw(t, "last"), Verdict: status.Draw(t, "verdict"),
			N: uint64(number.Draw(t, "n")), Stale: rapid.SampledFrom(stales).Draw(t, "stale"),
			Successes: number.Draw(t, "successes"), Failures: number.Draw(t, "failures"), GraceFailures: number.Draw(t, "grace failures"),
			Since: when("since"), CheckedAt: when("checked"), SuccessAt: when("success"), FailureAt: when("failure"), WindowAt: when("window at"),
			Error: text.Draw(t, "error"), Fresh: when("fresh"), Entered: when("entered"), GraceEnd: when("grace end"), AgentBy: when("agent by"),
			Patience: when("patience"), Hello: when("hello"), Due: when("due"), CountFrom: when("count from"), Gap: span("gap"), Pace: span("pace"),
			Confirming: rapid.Bool().Draw(t, "confirming"), Waiting: rapid.Bool().Draw(t, "waiting"),
		}
		p := rapid.SampledFrom(policies).Draw(t, "policy")
		var h history
		for range rapid.IntRange(0, 5).Draw(t, "results") {
			h.addResult(WindowResult{Window: rapid.Uint64().Draw(t, "window"), Result: Result{
				Start: time.Unix(0, rapid.Int64().Draw(t, "start")), Duration: time.Duration(rapid.Int64().Draw(t, "took")),
				Outcome: rapid.SampledFrom(outcomes).Draw(t, "outcome"), Reason: text.Draw(t, "reason"), Output: text.Draw(t, "output"),
				Cause: text.Draw(t, "cause"), Definite: rapid.Bool().Draw(t, "definite"),
			}})
			moved := Transition{
				Time: time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "time")), From: rapid.SampledFrom(statuses).Draw(t, "from"),
				To: rapid.SampledFrom(statuses).Draw(t, "to"), Reason: text.Draw(t, "reason"), Output: text.Draw(t, "output"),
				Window: rapid.Uint64Range(0, 2).Draw(t, "window"), N: rapid.Uint64Range(0, 2).Draw(t, "n"), Stale: rapid.SampledFrom(stales).Draw(t, "stale"),
			}
			if rapid.Bool().Draw(t, "lost") {
				moved.Persisted = lost
			}
			h.addTransition(moved)
		}
		got, err := encoded(c, p, s, &h)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(record{
			Version: recordVersion, Boot: c.bootID, Policy: p,
			Run: s.Run, Window: s.Window, Phase: s.Phase, Agent: s.Agent, Network: s.Network,
			Status: s.Status, Last: s.Last, Verdict: s.Verdict, N: s.N, Stale: s.Stale,
			Successes: s.Successes, Failures: s.Failures, GraceFailures: s.GraceFailures,
			Since: s.Since, CheckedAt: s.CheckedAt, SuccessAt: s.SuccessAt, FailureAt: s.FailureAt, WindowAt: s.WindowAt, Error: s.Error,
			Fresh: c.sinceBoot(s.Fresh), Entered: c.sinceBoot(s.Entered), GraceEnd: c.sinceBoot(s.GraceEnd), AgentBy: c.sinceBoot(s.AgentBy),
			Patience: c.sinceBoot(s.Patience), Hello: c.sinceBoot(s.Hello),
			Due: c.sinceBoot(s.Due), CountFrom: c.sinceBoot(s.CountFrom), Gap: s.Gap, Pace: s.Pace, Confirming: s.Confirming, Waiting: s.Waiting,
			Results: h.listResults(), Transitions: h.listTransitions(),
		})
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
	})
}
