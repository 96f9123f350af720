package shim

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/quiet"
)

// ends are the two ends of everything between the shim and the hypervisor.
type ends struct {
	net, control, bulk, output, console net.Conn // ours; net is nil without a network
	theirs                              hypervisor.Files
}

// connect makes a socket pair for each.
func connect(withNetwork bool) (_ *ends, err error) {
	e := new(ends)
	defer func() {
		if err != nil {
			e.close()
			e.theirs.Close()
		}
	}()
	pairs := []struct {
		name   string
		ours   *net.Conn
		theirs **os.File
	}{
		{"control", &e.control, &e.theirs.Control},
		{"bulk", &e.bulk, &e.theirs.Bulk},
		{"output", &e.output, &e.theirs.Output},
		{"console", &e.console, &e.theirs.Console},
		{"net", &e.net, &e.theirs.Net},
	}
	if !withNetwork {
		pairs = pairs[:4]
	}
	for _, p := range pairs {
		if *p.ours, *p.theirs, err = socketPair(p.name); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *ends) close() error {
	var errs []error
	for _, c := range []net.Conn{e.net, e.control, e.bulk, e.output, e.console} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err == nil && name == "net" { // where nearly everything comes and goes
		if q, qerr := quiet.New(conn.(*net.UnixConn)); qerr == nil {
			conn = q
		}
	}
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}
