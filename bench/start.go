package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
)

const (
	startTargets = 300
	startWithin  = 5 * time.Second
)

// benchStart measures how soon a target that comes up is healthy, by the default policy and without a hint.
func benchStart(ctx context.Context, s *site) (err error) {
	targets := target.Addresses(hereNet, enginePort, startTargets)
	server, err := startHelper(ctx, "target", target.Config{Targets: targets, Mode: target.Closed})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	h, err := startHelper(ctx, "peer", peer.Config{Peer: "hale", Type: "http", Targets: targets, Policy: `"interval":"10s"`, Wait: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	comes := make([]time.Duration, startTargets)
	for i := range comes {
		comes[i] = rand.N(startWithin)
	}
	slices.Sort(comes)
	var st peer.Stats
	if err := h.ask(peer.Request{Start: true}, &st); err != nil {
		return err
	}
	up := make([]time.Duration, startTargets)
	began := time.Now()
	for i, c := range comes {
		if err := pause(ctx, time.Until(began.Add(c))); err != nil {
			return err
		}
		var a target.Answer
		if err := server.ask(target.Request{Set: []int{i}, Mode: target.OK}, &a); err != nil {
			return err
		}
		up[i] = a.At
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := h.ask(peer.Request{Look: true}, &st); err != nil {
		return err
	}
	var lags, shares []float64
	for _, m := range st.Moves {
		if m.To != "healthy" {
			continue
		}
		behind := m.At - up[m.Target]
		lags = append(lags, float64(behind))
		shares = append(shares, float64(behind)/float64(m.At-st.Opened))
	}
	if len(shares) != startTargets {
		return fmt.Errorf("%d of %d targets are healthy %v after the last has come up", len(shares), startTargets, 3*time.Second)
	}
	s.report.add(row{what: fmt.Sprintf("time to healthy without hints: lag from listening, of the time since the window opened, median of %d", startTargets), unit: share, figure: median(shares), most: 0.15, bound: "≤ 15%"})
	s.report.add(row{what: "that lag itself, median", unit: lag, figure: median(lags)})
	return nil
}

func share(v float64) string { return fmt.Sprintf("%.1f%%", 100*v) }
