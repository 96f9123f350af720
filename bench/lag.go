package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
)

// How many targets lag is measured with, and how many of them are bad later, in each of two ways.
const (
	lagTargets = 5000
	lagBad     = lagTargets / 10
	lagWarm    = 8 * time.Second
	lagWindow  = 20 * time.Second
)

// benchLag measures how long after they are due probes begin, and what targets that hang make of it for the others.
func benchLag(ctx context.Context, s *site) (err error) {
	bad := target.Addresses(hereNet, enginePort, 2*lagBad)
	good := target.Addresses(nginxNet, enginePort, lagTargets-2*lagBad)
	stop, err := s.startNginx(good)
	if err != nil {
		return err
	}
	defer stop()
	server, err := startHelper(ctx, "target", target.Config{Targets: bad, Mode: target.OK})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	config := peer.Config{Peer: "hale", Type: "http", Targets: append(bad, good...), Interval: engineInterval, Timeout: engineInterval, Others: len(bad), Full: true}
	usual, hung, err := s.lags(ctx, config, server)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("start lag of probes, %d targets at %v", lagTargets, engineInterval)
	s.report.add(row{what: what + ": p50", unit: lag, figure: float64(usual.P50)})
	s.report.add(row{what: what + ": p99", unit: lag, figure: float64(usual.P99), most: float64(50 * time.Millisecond), bound: "≤ 50 ms"})
	s.report.add(row{what: what + ": max", unit: lag, figure: float64(usual.Max)})
	s.report.add(moved("p99 of the others while 10% accept and never answer and 10% never accept", usual, hung))
	if err := server.ask(target.Request{Set: indexes(0, len(bad)), Mode: target.OK}, new(target.Answer)); err != nil {
		return err
	}
	for i := range lagBad {
		config.Targets[i].TLS = true
	}
	config.Others = lagBad
	usual, hung, err = s.lags(ctx, config, server)
	if err != nil {
		return err
	}
	s.report.add(moved("p99 of the others while 10% are https and never answer a ClientHello", usual, hung))
	return nil
}

func lag(v float64) string { return milliseconds(v / float64(time.Millisecond)) }

// moved is the row of a p99 that should stay where it is.
func moved(what string, usual, hung peer.Quantiles) row {
	room := max(usual.P99/5, 5*time.Millisecond)
	return row{
		what: what, unit: lag, figure: float64(hung.P99), reference: float64(usual.P99), beside: "before",
		most: float64(usual.P99 + room), bound: "≤ a fifth, or 5 ms, more",
	}
}

// lags returns the others' lag before and while the first targets hang.
func (s *site) lags(ctx context.Context, config peer.Config, server *helper) (usual, hung peer.Quantiles, err error) {
	h, err := startHelper(ctx, "peer", config)
	if err != nil {
		return usual, hung, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	look := func() (peer.Quantiles, error) {
		if err := pause(ctx, lagWarm); err != nil {
			return peer.Quantiles{}, err
		}
		if err := h.ask(peer.Request{Reset: true}, new(peer.Stats)); err != nil {
			return peer.Quantiles{}, err
		}
		if err := pause(ctx, lagWindow); err != nil {
			return peer.Quantiles{}, err
		}
		var st peer.Stats
		err := h.ask(peer.Request{}, &st)
		return st.Lag, err
	}
	if usual, err = look(); err != nil {
		return usual, hung, err
	}
	turns := []target.Request{{Set: indexes(0, lagBad), Mode: target.Silent}, {Set: indexes(lagBad, 2*lagBad), Mode: target.Full}}
	for _, r := range turns[:1+(config.Others/lagBad-1)] {
		if err := server.ask(r, new(target.Answer)); err != nil {
			return usual, hung, err
		}
	}
	hung, err = look()
	return usual, hung, err
}

func indexes(from, to int) []int {
	list := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}
