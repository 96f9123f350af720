package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/bench/transfer"
)

const (
	transferTime   = 2 * time.Second
	transferRounds = 5
)

// benchTraffic moves bytes through a published port, over the loopback, and through QEMU's own user network, in turn.
func benchTraffic(ctx context.Context, s *site) error {
	loop, stop, err := onLoopback()
	if err != nil {
		return err
	}
	defer stop()
	return s.withDaemon(ctx, "traffic", func(d *daemon) error {
		in, err := d.healthy(ctx, api.CreateInstanceRequest{
			Name: "traffic", Image: "bench/guest",
			Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: transfer.SourcePort}, {GuestPort: transfer.SinkPort}}},
		})
		if err != nil {
			return err
		}
		published := ends{}
		for _, p := range in.Network.Ports {
			published[p.GuestPort] = fmt.Sprintf("%s:%d", p.HostAddr, p.HostPort)
		}
		paths := map[string]ends{"hale": published, "loopback": loop}
		slirp, stop, err := s.userNetwork(ctx, d, in.ID)
		if err != nil {
			s.report.note("QEMU's own user network was not measured: %v.", err)
		} else {
			defer stop()
			paths["slirp"] = slirp
		}
		for _, way := range []struct {
			what string
			port int
			move func(string, time.Duration) (float64, error)
		}{
			{"to a guest through a published port", transfer.SinkPort, transfer.Send},
			{"from a guest through a published port", transfer.SourcePort, transfer.Fetch},
		} {
			rates, err := inTurn(paths, way.port, way.move)
			if err != nil {
				return err
			}
			hale := median(rates["hale"])
			s.report.add(row{what: way.what, unit: perSecond, figure: hale, reference: median(rates["loopback"]), beside: "the host's loopback"})
			if v := rates["slirp"]; v != nil {
				s.report.add(row{what: way.what, unit: perSecond, figure: hale, reference: median(v), beside: "QEMU's user network", mostRatio: 1, more: true, bound: "faster"})
			}
		}
		s.report.note("Traffic: medians of %d transfers of %v each over one connection, in turn; each byte is counted where it arrives.", transferRounds, transferTime)
		return nil
	})
}

// ends are addresses by the port that they lead to.
type ends map[int]string

// inTurn measures each path, again and again.
func inTurn(paths map[string]ends, port int, move func(string, time.Duration) (float64, error)) (map[string][]float64, error) {
	names := make([]string, 0, len(paths))
	for name := range paths {
		names = append(names, name)
	}
	slices.Sort(names)
	rates := map[string][]float64{}
	for range transferRounds {
		for _, name := range names {
			r, err := move(paths[name][port], transferTime)
			if err != nil {
				return nil, fmt.Errorf("%s, port %d: %w", name, port, err)
			}
			rates[name] = append(rates[name], r)
		}
	}
	return rates, nil
}

// onLoopback serves transfers from this process.
func onLoopback() (ends, func(), error) {
	e := ends{}
	var listeners []net.Listener
	stop := func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	for _, port := range []int{transfer.SourcePort, transfer.SinkPort} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			stop()
			return nil, nil, err
		}
		listeners = append(listeners, ln)
		e[port] = ln.Addr().String()
		go transfer.ServeOn(ln, port)
	}
	return e, stop, nil
}

// userNetwork boots the guest's program on QEMU's own user network, with the options of a machine of hale's: board, accelerator,
// processor, memory and the kernel's command line are read off it.
func (s *site) userNetwork(ctx context.Context, d *daemon, like string) (ends, func(), error) {
	pid, err := d.qemuOf(like)
	if err != nil {
		return nil, nil, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil, nil, err
	}
	argv := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	dir := filepath.Join(s.dir, "slirp")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, nil, err
	}
	k, err := kernelFor(s.kernels, dir)
	if err != nil {
		return nil, nil, err
	}
	program, err := os.ReadFile(s.guest)
	if err != nil {
		return nil, nil, err
	}
	image, err := k.Image()
	if err != nil {
		return nil, nil, err
	}
	initrd, err := k.Initrd(program)
	if err != nil {
		return nil, nil, err
	}
	args := []string{"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-kernel", image, "-initrd", initrd, "-serial", "file:" + filepath.Join(dir, "console")}
	for i, a := range argv[:len(argv)-1] {
		if slices.Contains([]string{"-machine", "-accel", "-cpu", "-smp", "-m", "-append"}, a) {
			args = append(args, a, argv[i+1])
		}
	}
	e := ends{}
	netdev := "user,id=net,restrict=on" // forwarded ports work; nothing else leaves the guest
	for _, port := range []int{transfer.SourcePort, transfer.SinkPort, 80} {
		free, err := freePort()
		if err != nil {
			return nil, nil, err
		}
		e[port] = fmt.Sprintf("127.0.0.1:%d", free)
		netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", free, port)
	}
	args = append(args, "-netdev", netdev, "-device", "virtio-net-pci,netdev=net,romfile=")
	stop, err := s.startUserNetwork(ctx, argv[0], args, e[80])
	return e, stop, err
}

// startUserNetwork returns when the guest's program answers at addr.
func (s *site) startUserNetwork(ctx context.Context, qemu string, args []string, addr string) (func(), error) {
	cmd := exec.Command(qemu, args...)
	var words bytes.Buffer
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	go func() { cmd.Wait(); close(gone) }()
	stop := func() { cmd.Process.Kill(); <-gone }
	deadline := time.After(bootPatience)
	for {
		// QEMU accepts before the guest does; only an answer says that it is there.
		if c, err := ask(addr); err == nil {
			c.Close()
			return stop, nil
		} else if c != nil {
			c.Close()
		}
		select {
		case <-gone:
			return nil, fmt.Errorf("QEMU ended: %s", bytes.TrimSpace(words.Bytes()))
		case <-ctx.Done():
			stop()
			return nil, context.Cause(ctx)
		case <-deadline:
			stop()
			return nil, fmt.Errorf("the guest does not answer within %v", bootPatience)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freePort is one that was free a moment ago: QEMU cannot be given a socket for this.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
