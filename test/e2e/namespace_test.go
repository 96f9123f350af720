//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A namespace is a network of its own, with a mount table of its own: no address of it is one of this machine's. It lives as long as
// the process that holds it.
type namespace struct {
	t      testing.TB
	pid    int
	inUser bool // it lies in a user namespace, for want of root
}

// newNamespaces makes the host's network and the outside, joined by a cable. The host is 203.0.113.1 and 192.168.77.1; the outside
// has, with an echo at port 7 of each, 203.0.113.10 (and names at its port 53), 192.168.77.10, the cloud's metadata address and the
// addresses of other instances: whatever gets out is answered. Root makes them as they are, anybody else in a user namespace.
func newNamespaces(t *testing.T) (inside, outside *namespace) {
	t.Helper()
	inside = &namespace{t: t, inUser: os.Geteuid() != 0}
	flags := []string{"--net", "--mount"}
	if inside.inUser {
		flags = append(flags, "--user", "--map-root-user")
	}
	inside.pid = hold(t, exec.Command("unshare", append(flags, "--", program, "hold")...))
	outside = &namespace{t: t, inUser: inside.inUser}
	outside.pid = hold(t, inside.command("unshare", "--net", "--", program, "hold"))

	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 203.0.113.10\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside.run("mount", "--bind", resolv, "/etc/resolv.conf")
	inside.run("ip", "link", "set", "lo", "up")
	inside.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", fmt.Sprint(outside.pid))
	inside.run("ip", "addr", "add", "203.0.113.1/24", "dev", "cable")
	inside.run("ip", "addr", "add", "192.168.77.1/24", "dev", "cable")
	inside.run("ip", "link", "set", "cable", "up")
	outside.run("ip", "link", "set", "lo", "up")
	var addrs []string // each has servers of its own, so that answers come from where they were asked for
	for _, a := range append(outsideAddrs, "203.0.113.10/24", "192.168.77.10/24") {
		outside.run("ip", "addr", "add", a, "dev", "cable")
		addr, _, _ := strings.Cut(a, "/")
		addrs = append(addrs, addr)
	}
	outside.run("ip", "link", "set", "cable", "up")
	inside.run("ip", "route", "add", "default", "via", "203.0.113.10")
	hold(t, outside.command(program, append([]string{"outside", "dns"}, addrs...)...))
	hold(t, inside.command(program, "outside", "-", "127.0.0.1", "203.0.113.1", "192.168.77.1"))
	return inside, outside
}

// outsideAddrs are addresses outside beside those on the cable.
var outsideAddrs = []string{"169.254.169.254/32", "10.77.0.200/32", "10.1.2.3/32", "172.16.0.9/32", "100.64.0.9/32", "198.51.100.7/32"}

// hold starts a process that says that it is there and ends with the test.
func hold(t testing.TB, cmd *exec.Cmd) int {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "here\n" {
		t.Fatalf("%v says %q (%v): these tests need root, or user namespaces for everybody", cmd.Args, line, err)
	}
	return cmd.Process.Pid
}

// command is a command in the namespace; in none, in ours.
func (n *namespace) command(name string, args ...string) *exec.Cmd {
	if n == nil {
		return exec.Command(name, args...)
	}
	enter := []string{"--target", fmt.Sprint(n.pid), "--net", "--mount"}
	if n.inUser {
		enter = append(enter, "--user", "--preserve-credentials")
	}
	return exec.Command("nsenter", append(append(enter, "--", name), args...)...)
}

// run runs a command that must succeed, and returns what it printed.
func (n *namespace) run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.command(name, args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// transport leads to a daemon in the namespace, which listens on the loopback there.
func (n *namespace) transport() *http.Transport {
	if n == nil {
		return transport
	}
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
		defer ours.Close()
		defer theirs.Close()
		cmd := n.command(program, "pipe", addr)
		cmd.Stdin = theirs
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		go cmd.Wait()
		return net.FileConn(ours)
	}}
}
