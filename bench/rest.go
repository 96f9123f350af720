package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/halevm/hale/api"
)

const (
	restTime    = 30 * time.Second // of which processor time is taken
	settleTime  = 10 * time.Second // after a boot, before memory is read
	connections = 1000
	stormWait   = 5 * time.Second // after the connections, before memory is read again
)

// benchRest measures the shim and the daemon with one healthy instance and nothing to do but its checks.
func benchRest(ctx context.Context, s *site) error {
	idle, stop, err := startHere(exec.Command(s.guest, "idle"))
	if err != nil {
		return err
	}
	defer stop()
	return s.withDaemon(ctx, "rest", func(d *daemon) error {
		in, err := d.healthy(ctx, api.CreateInstanceRequest{
			Name: "rest", Image: "bench/guest",
			Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
		})
		if err != nil {
			return err
		}
		shim, err := d.shimOf(in.ID)
		if err != nil {
			return err
		}
		time.Sleep(settleTime)
		pids := map[string]int{"shim": shim, "daemon": d.cmd.Process.Pid, "idle": idle}
		cpu, err := cpuOf(pids, restTime)
		if err != nil {
			return err
		}
		memory, err := memoryOf(pids)
		if errors.Is(err, fs.ErrPermission) {
			// A shim is not dumpable, so its memory is nobody's to look at but root's.
			s.report.note("The memory of shims was not measured: that needs root.")
			s.report.add(row{what: "shim at rest: of a core", unit: ofACore, figure: cpu["shim"], most: 0.001, bound: "≤ 0.1%"})
			s.report.add(row{what: "daemon with one healthy instance: of a core", unit: ofACore, figure: cpu["daemon"], most: 0.01, bound: "≤ 1%"})
			return nil
		}
		if err != nil {
			return err
		}
		const beside = "a process of Go that sleeps"
		s.report.add(row{what: "shim at rest: private memory", unit: megabytes, figure: memory["shim"], reference: memory["idle"], beside: beside, most: 8e6, bound: "≤ 8 MB"})
		s.report.add(row{what: "shim at rest: of a core", unit: ofACore, figure: cpu["shim"], most: 0.001, bound: "≤ 0.1%"})
		s.report.add(row{what: "daemon with one healthy instance: private memory", unit: megabytes, figure: memory["daemon"], reference: memory["idle"], beside: beside, most: 60e6, bound: "≤ 60 MB"})
		s.report.add(row{what: "daemon with one healthy instance: of a core", unit: ofACore, figure: cpu["daemon"], most: 0.01, bound: "≤ 1%"})
		port := in.Network.Ports[0]
		held, err := storm(fmt.Sprintf("%s:%d", port.HostAddr, port.HostPort), func() (float64, error) { return privateMemory(shim) })
		if err != nil {
			return err
		}
		time.Sleep(stormWait)
		after, err := privateMemory(shim)
		if err != nil {
			return err
		}
		s.report.add(row{what: fmt.Sprintf("shim after %d connections at a time: private memory", connections), unit: megabytes, figure: after, reference: memory["shim"], beside: "at rest", most: 16e6, bound: "≤ 16 MB"})
		s.report.add(row{what: fmt.Sprintf("shim while %d connections are open", connections), unit: megabytes, figure: held, reference: memory["shim"], beside: "at rest"})
		s.report.note("At rest: processor time over %v, the instance's check over http as often as by default; memory %v after the machine was healthy, and %v after the last connection was closed.",
			restTime, settleTime+restTime, stormWait)
		return nil
	})
}

// cpuOf is what part of a core each process uses over d.
func cpuOf(pids map[string]int, d time.Duration) (map[string]float64, error) {
	began, before := time.Now(), map[string]time.Duration{}
	for name, pid := range pids {
		t, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		before[name] = t
	}
	time.Sleep(d)
	shares := map[string]float64{}
	for name, pid := range pids {
		t, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		shares[name] = float64(t-before[name]) / float64(time.Since(began))
	}
	return shares, nil
}

func memoryOf(pids map[string]int) (map[string]float64, error) {
	sizes := map[string]float64{}
	for name, pid := range pids {
		m, err := privateMemory(pid)
		if err != nil {
			return nil, err
		}
		sizes[name] = m
	}
	return sizes, nil
}

// storm opens all connections, has an answer over each, looks while all are open, and closes them.
func storm(addr string, look func() (float64, error)) (float64, error) {
	conns := make([]net.Conn, connections)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	var group sync.WaitGroup
	failed := make([]error, connections)
	slots := make(chan struct{}, 50) // opened at one time; all stay open
	for i := range conns {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			conns[i], failed[i] = ask(addr)
		})
	}
	group.Wait()
	for i, err := range failed {
		if err != nil {
			return 0, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return look()
}

// ask has one answer over a new connection, and leaves that open.
func ask(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, bootPatience)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(bootPatience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return c, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "HTTP/1.1 200 OK\r\n" {
		err = fmt.Errorf("it answers %q", line)
	}
	return c, err
}
