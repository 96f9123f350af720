// Command machine stands in QEMU's place where hundreds of machines are wanted at a time: under QEMU's name, with its monitor, and with
// what a guest has at the other end of its ports and of its network card: an agent that says that the program runs, and a network stack
// with a small HTTP server. The shim beside it is a real one, and so is everything else.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest/protocol"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("QEMU emulator version 7.2.22 (a stand-in of the benches)")
		return
	}
	m, err := parse(os.Args)
	if err == nil {
		err = m.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		os.Exit(1)
	}
}

// A machine is what is needed of the command line: the numbers of descriptors, and the card's address.
type machine struct {
	monitor, control, console, card uintptr
	mac                             string

	once sync.Once
	told *protocol.Writer
}

func parse(args []string) (*machine, error) {
	m := &machine{}
	for _, a := range args {
		for format, to := range map[string]*uintptr{
			"socket,id=qmp,fd=%d": &m.monitor, "socket,id=control,fd=%d": &m.control, "socket,id=console,fd=%d": &m.console,
			"stream,id=net,server=off,addr.type=fd,addr.str=%d": &m.card,
		} {
			fmt.Sscanf(a, format, to)
		}
		if _, mac, ok := strings.Cut(a, "virtio-net-pci,netdev=net,mac="); ok {
			m.mac, _, _ = strings.Cut(mac, ",")
		}
	}
	if m.monitor == 0 || m.control == 0 || m.card == 0 {
		return nil, fmt.Errorf("no monitor, control port or card in %q", args)
	}
	return m, nil
}

func (m *machine) run() error {
	monitor := os.NewFile(m.monitor, "monitor")
	failed := make(chan error, 3)
	go func() { failed <- processor() }()
	go func() { failed <- m.obey(monitor) }()
	go func() { failed <- m.serve(os.NewFile(m.control, "control")) }()
	return <-failed
}

// processor is a thread by the name of a machine's processor, whose delays the shim looks at.
func processor() error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&[]byte("CPU 0/KVM\x00")[0])), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	select {}
}

// obey does what is said on the monitor, which is to end.
func (m *machine) obey(monitor *os.File) error {
	fmt.Fprintln(monitor, `{"QMP": {"version": {}, "capabilities": []}}`)
	for lines := bufio.NewScanner(monitor); lines.Scan(); {
		var c struct {
			Execute string
			ID      uint64
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		result := "{}"
		if strings.HasPrefix(c.Execute, "query-cpus") {
			result = "[]"
		}
		fmt.Fprintf(monitor, `{"return": %s, "id": %d}`+"\n", result, c.ID)
		switch c.Execute {
		case "qmp_capabilities":
			fmt.Fprintln(monitor, `{"event": "VSERPORT_CHANGE", "data": {"id": "port-control", "open": true}, "timestamp": {"seconds": 1, "microseconds": 0}}`)
		case "quit", "system_powerdown":
			os.Exit(0)
		}
	}
	return io.EOF
}

// serve is the agent: it greets, boots, and says that the program runs.
func (m *machine) serve(port io.ReadWriteCloser) error {
	ctx := context.Background()
	in := protocol.NewReader(port)
	m.told = protocol.NewWriter(port)
	state := protocol.State{}
	say := func(session uint64, t protocol.Type, message any) error {
		f, err := protocol.JSON(t, session, message)
		if err != nil {
			return err
		}
		return m.told.Send(ctx, f)
	}
	for {
		f, err := in.Next()
		if err != nil {
			return err
		}
		switch f.Type {
		case protocol.TypeHello:
			err = say(f.Session, protocol.TypeWelcome, protocol.Welcome{Version: protocol.Version, Agent: "bench", State: state})
		case protocol.TypeEndAck:
			os.Exit(0)
		case protocol.TypeRequest:
			var r protocol.Request
			if err := json.Unmarshal(f.Payload, &r); err != nil {
				return err
			}
			reply := protocol.Reply{ID: r.ID}
			switch r.Op {
			case protocol.OpBoot:
				var b protocol.Boot
				if err := json.Unmarshal(r.Body, &b); err != nil {
					return err
				}
				if err := m.boot(b); err != nil {
					return err
				}
				state = protocol.State{Booted: true, Started: true}
			case protocol.OpShutdown:
				state.Exited = &protocol.Exited{}
				time.AfterFunc(time.Second, func() { os.Exit(0) })
			default:
				reply.Error = "a stand-in does not do that"
			}
			if err = say(f.Session, protocol.TypeReply, reply); err == nil && reply.Error == "" {
				err = say(f.Session, protocol.TypeState, state)
			}
		}
		if err != nil {
			return err
		}
	}
}

// boot brings the network up, once.
func (m *machine) boot(b protocol.Boot) (err error) {
	m.once.Do(func() { err = m.join(b) })
	return err
}
