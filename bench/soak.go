package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
)

const (
	soakTargets = 2000
	soakPort    = 8080            // of its own, so that it runs beside other benches
	soakTimeout = 3 * time.Second // so long no other work on the host keeps the targets' server waiting
	soakEnv     = "HALE_SOAK"     // how long it lasts
	soakStarved = 0.01            // of the results, at most, may say nothing because the host was starved
)

// benchSoak watches targets that fail at random for an hour, and compares each result, and now and then each status, with what the
// targets did. It is run by name only.
func benchSoak(ctx context.Context, s *site) (err error) {
	lasts := time.Hour
	if v := os.Getenv(soakEnv); v != "" {
		if lasts, err = time.ParseDuration(v); err != nil {
			return fmt.Errorf("%s: %w", soakEnv, err)
		}
	}
	seed := rand.Uint64() | 1
	targets := target.Addresses(hereNet, soakPort, soakTargets)
	server, err := startHelper(ctx, "target", target.Config{Targets: targets, Mode: target.Fickle, Seed: seed})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	h, err := startHelper(ctx, "peer", peer.Config{Peer: "hale", Type: "http", Targets: targets, Interval: engineInterval, Timeout: soakTimeout, Seed: seed, Server: server.pid, Full: true, Turned: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	const settles = time.Minute // of memory: histories are full, and what they say becomes what these targets say
	if err := pause(ctx, min(settles+20*time.Second, lasts/4)); err != nil {
		return err
	}
	var first, last peer.Stats
	if err := h.ask(peer.Request{Collect: true}, &first); err != nil {
		return err
	}
	for until := time.Now().Add(lasts); time.Now().Before(until); {
		if err := pause(ctx, min(time.Minute, lasts/10)); err != nil {
			return err
		}
		if err := h.ask(peer.Request{Look: true}, &last); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "   %d probes, %d of them failures, %d wrong; %d of %d checked say that the host was starved; %d targets are unhealthy; %s resident, %d goroutines\n",
			last.Probes, last.Failures, last.Wrong, last.Starved, last.Checked, last.Unhealthy, megabytes(float64(last.Memory)), last.Goroutines)
		for _, w := range last.Words {
			fmt.Fprintln(os.Stderr, "   wrong:", w)
		}
		if err := h.ask(peer.Request{Reset: true}, new(peer.Stats)); err != nil { // moves are kept until they are told
			return err
		}
	}
	if err := h.ask(peer.Request{Collect: true, Look: true}, &last); err != nil {
		return err
	}
	s.report.add(row{what: fmt.Sprintf("soak of %v, %d targets that fail at random (seed %d): results or statuses that are not what the targets did", lasts, soakTargets, seed), unit: plain, figure: float64(last.Wrong), zero: true, bound: "none"})
	s.report.add(row{what: "soak: resident memory at the end", unit: megabytes, figure: float64(last.Memory), reference: float64(first.Memory), beside: "at its beginning", mostRatio: 1.1, bound: "flat"})
	s.report.add(row{what: "soak: results checked", unit: plain, figure: float64(last.Checked)})
	starved := float64(last.Starved) / float64(max(last.Checked, 1))
	s.report.add(row{what: "soak: of those that say nothing, because the host was starved", unit: percent, figure: starved, most: soakStarved, bound: "≤ 1%"})
	if last.Wrong > 0 {
		return fmt.Errorf("%d results or statuses are wrong: %q", last.Wrong, last.Words)
	}
	if starved > soakStarved {
		return fmt.Errorf("%d of %d results say that the host was starved, which is more than 1%%: too little was checked", last.Starved, last.Checked)
	}
	return nil
}
