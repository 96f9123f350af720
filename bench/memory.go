package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
)

const (
	memoryTargets  = 10_000
	memoryServers  = 1_000 // each is asked as so many targets
	memoryInterval = 2 * time.Second
	memoryProbes   = 100_000
	memoryPort     = enginePort + 1 // what other peers left in TIME_WAIT is none of this
	waitingFor     = time.Minute    // how long Linux keeps what is in TIME_WAIT
)

// benchMemory measures what a watched target costs the process that watches it, and whether that grows with the probes.
func benchMemory(ctx context.Context, s *site) (err error) {
	stop, err := s.startNginx(target.Addresses(nginxNet, memoryPort, memoryServers))
	if err != nil {
		return err
	}
	defer stop()
	var targets []target.Address
	for range memoryTargets / memoryServers {
		targets = append(targets, target.Addresses(nginxNet, memoryPort, memoryServers)...)
	}
	h, err := startHelper(ctx, "peer", peer.Config{Peer: "hale", Type: "http", Targets: targets, Interval: memoryInterval, Timeout: memoryInterval, Full: true, Turned: true, Wait: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	var before, started, at, ended peer.Stats
	if err := h.ask(peer.Request{Collect: true}, &before); err != nil {
		return err
	}
	if err := h.ask(peer.Request{Start: true, Spread: memoryInterval}, new(peer.Stats)); err != nil {
		return err
	}
	if err := pause(ctx, 4*memoryInterval); err != nil {
		return err
	}
	if err := h.ask(peer.Request{Reset: true}, &started); err != nil {
		return err
	}
	began := time.Now()
	var most, waiting, waited int
	for at.Probes < memoryProbes || time.Since(began) < waitingFor+20*time.Second {
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
		if err := h.ask(peer.Request{}, &at); err != nil {
			return err
		}
		most = max(most, at.Goroutines)
		n, err := timeWait(memoryPort)
		if err != nil {
			return err
		}
		if time.Since(began) < waitingFor {
			waited = max(waited, n)
		} else {
			waiting = max(waiting, n)
		}
	}
	if at.Failures > at.Probes/1000 || at.Watched != memoryTargets {
		return fmt.Errorf("%d of %d probes failed, %d targets watched", at.Failures, at.Probes, at.Watched)
	}
	if err := h.ask(peer.Request{Collect: true}, &ended); err != nil {
		return err
	}
	each := func(st peer.Stats) float64 { return float64(st.Memory-before.Memory) / memoryTargets }
	s.report.add(row{what: fmt.Sprintf("resident memory for each of %d watched targets, histories full", memoryTargets), unit: kilobytes, figure: each(at), most: 24 << 10, bound: "≤ 24 KiB, 16 is aimed at"})
	s.report.add(row{what: "the same, garbage collected", unit: kilobytes, figure: each(ended)})
	s.report.add(row{what: fmt.Sprintf("goroutines after %d probes", at.Probes), unit: plain, figure: float64(at.Goroutines), reference: float64(started.Goroutines), beside: "before them", most: 200, bound: "flat"})
	s.report.add(row{what: "descriptors after them", unit: plain, figure: float64(at.Files), reference: float64(started.Files), beside: "before them", most: float64(started.Files + 100), bound: "flat"})
	s.report.add(row{what: "sockets in TIME_WAIT on the prober's side, after its first minute", unit: plain, figure: float64(waiting), reference: float64(waited), beside: "in it", most: float64(max(waited+waited/10, 100)), bound: "flat"})
	s.report.note("Memory: %d targets at %v over %d probes; %d goroutines at most; the growth of the resident memory is against the same process with nothing watched yet.", memoryTargets, memoryInterval, at.Probes, most)
	return nil
}

func kilobytes(v float64) string { return fmt.Sprintf("%.1f KiB", v/1024) }
func plain(v float64) string     { return fmt.Sprintf("%.0f", v) }

// timeWait counts the sockets in TIME_WAIT whose other end is a port.
func timeWait(port uint16) (int, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, suffix := 0, fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st
		if c := strings.Fields(lines.Text()); len(c) > 3 && c[3] == "06" && strings.HasSuffix(c[2], suffix) {
			n++
		}
	}
	return n, nil
}
