package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/bench/transfer"
)

// insideCommand is the first argument of this program where it runs in a network namespace.
const insideCommand = "inside"

// The addresses of the host and of the outside, there. They are for documentation, and so nobody's.
const (
	insideAddr  = "203.0.113.1"
	outsideAddr = "203.0.113.10"
)

// outboundRates are bytes in a second: out of a machine, and beside it out of a process of its host.
type outboundRates struct {
	GuestFetch, GuestSend, HostFetch, HostSend []float64
}

// benchOutbound measures what a guest has of a server outside, through the shim: all of it in namespaces, where this program runs
// once more.
func benchOutbound(ctx context.Context, s *site) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"--net", "--mount"}
	if os.Geteuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	args = append(args, "--", self, insideCommand, "-hale", s.binary, "-kernels", s.kernels, "-guest", s.guest, "-image", s.image, "-dir", filepath.Join(s.dir, "outbound"))
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // unshare has become it
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		s.report.note("Traffic to the outside was not measured: it needs root, or user namespaces for everybody.")
		fmt.Fprintf(os.Stderr, "   outbound: %v: %s\n", err, words.String())
		return ctx.Err()
	}
	var r outboundRates
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	const beside = "a process of the host's over the same cable"
	s.report.add(row{what: "out of a guest, to a server outside", unit: perSecond, figure: median(r.GuestSend), reference: median(r.HostSend), beside: beside})
	s.report.add(row{what: "into a guest, from a server outside", unit: perSecond, figure: median(r.GuestFetch), reference: median(r.HostFetch), beside: beside})
	return nil
}

// inside is the part in the namespace. It returns the exit code.
func inside(ctx context.Context, args []string) int {
	var s site
	f := flag.NewFlagSet(insideCommand, flag.ExitOnError)
	for name, to := range map[string]*string{"hale": &s.binary, "kernels": &s.kernels, "guest": &s.guest, "image": &s.image, "dir": &s.dir} {
		f.StringVar(to, name, "", "")
	}
	f.Parse(args)
	rates, err := s.outbound(ctx)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(rates)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (s *site) outbound(ctx context.Context) (outboundRates, error) {
	var r outboundRates
	if err := os.Mkdir(s.dir, 0o711); err != nil {
		return r, err
	}
	stop, err := s.layCable()
	if err != nil {
		return r, err
	}
	defer stop()
	err = s.withDaemon(ctx, "data", func(d *daemon) error {
		in, err := d.healthy(ctx, api.CreateInstanceRequest{Name: "out", Image: "bench/guest"})
		if err != nil {
			return err
		}
		inGuest := func(args ...string) (string, error) {
			return d.run(ctx, append([]string{"exec", in.ID, "--", "/guest"}, args...)...)
		}
		onHost := func(args ...string) (string, error) {
			out, err := exec.CommandContext(ctx, s.guest, args...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return strings.TrimSpace(string(out)), err
		}
		for range transferRounds {
			for _, m := range []struct {
				to   *[]float64
				run  func(...string) (string, error)
				what string
				port int
			}{
				{&r.GuestSend, inGuest, "send", transfer.SinkPort}, {&r.HostSend, onHost, "send", transfer.SinkPort},
				{&r.GuestFetch, inGuest, "fetch", transfer.SourcePort}, {&r.HostFetch, onHost, "fetch", transfer.SourcePort},
			} {
				out, err := m.run(m.what, fmt.Sprintf("%s:%d", outsideAddr, transfer.HostOffset+m.port), transferTime.String())
				if err != nil {
					return err
				}
				rate, err := strconv.ParseFloat(out, 64)
				if err != nil {
					return err
				}
				*m.to = append(*m.to, rate)
			}
		}
		return nil
	})
	return r, err
}

// layCable makes the outside, in another namespace, with a server of transfers.
func (s *site) layCable() (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, f := range stops {
			f()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	holder, end, err := startHere(exec.Command("unshare", "--net", "--", s.guest, "idle"))
	if err != nil {
		return stop, err
	}
	stops = append(stops, end)
	outside := func(args ...string) []string {
		return append([]string{"nsenter", "--target", strconv.Itoa(holder), "--net", "--preserve-credentials", "--"}, args...)
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", strconv.Itoa(holder)},
		{"ip", "addr", "add", insideAddr + "/24", "dev", "cable"},
		{"ip", "link", "set", "cable", "up"},
		outside("ip", "addr", "add", outsideAddr+"/24", "dev", "cable"),
		outside("ip", "link", "set", "cable", "up"),
		{"ip", "route", "add", "default", "via", outsideAddr},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return stop, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	serve := outside(s.guest, "transfers", outsideAddr)
	_, end, err = startHere(exec.Command(serve[0], serve[1:]...))
	if err != nil {
		return stop, err
	}
	stops = append([]func(){end}, stops...)
	return stop, nil
}

// startHere starts a process that says that it is there, and ends when its standard input does.
func startHere(cmd *exec.Cmd) (pid int, stop func(), err error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	var words bytes.Buffer
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	stop = func() {
		in.Close()
		limit := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer limit.Stop()
		cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "here\n" {
		stop()
		return 0, nil, errors.Join(fmt.Errorf("%q says %q: %s", cmd.Args, line, words.String()), err)
	}
	return cmd.Process.Pid, stop, nil
}
