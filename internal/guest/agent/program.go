package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

// outputPatience is how long the host may take to read the program's last output.
const outputPatience = 5 * time.Second

// live is the life of the machine: boot, program, end.
func (a *Agent) live() {
	var b protocol.Boot
	select {
	case b = <-a.boots:
		a.end(a.runProgram(b))
	case <-a.stops:
		a.end(protocol.State{Exited: &protocol.Exited{Message: "stopped before the program was started"}})
	case <-a.ctx.Done():
	}
}

// end tells the host how it ended, gives it time to take note, and powers off.
func (a *Agent) end(last protocol.State) {
	if a.ctx.Err() != nil {
		return
	}
	a.setState(func(s *protocol.State) { s.Failed, s.Exited, s.Written = last.Failed, last.Exited, last.Written })
	a.awaitAck()
	a.c.Machine.PowerOff()
}

func failedState(code int, err error) protocol.State {
	return protocol.State{Failed: &protocol.Failed{Code: code, Message: err.Error()}}
}

// runProgram prepares the machine and runs the image's program in it. The result says how that ended.
func (a *Agent) runProgram(b protocol.Boot) protocol.State {
	if err := a.c.Machine.Boot(b); err != nil {
		return failedState(codeCannotRun, fmt.Errorf("the machine cannot be prepared: %w", err))
	}
	if a.c.Cgroups != "" {
		if err := a.groups.use(a.c.Cgroups); err != nil {
			a.log.Warn("no cgroups", "err", err)
		}
	}
	im := image{process: b.Process, hostname: b.Hostname, passwd: "/etc/passwd", group: "/etc/group"}
	a.mu.Lock()
	a.image = im
	a.mu.Unlock()
	stop, err := stopSignal(b.Process.StopSignal)
	if err != nil {
		a.log.Warn("the image's stop signal; SIGTERM instead", "err", err)
	}
	if b.Process.Dir != "" {
		// As Docker does: an image may name a directory that it does not have. Where this fails, starting says why.
		os.MkdirAll(b.Process.Dir, 0o755)
	}
	cmd, fault := im.command(machine.ExecRequest{Argv: b.Process.Argv})
	if fault != nil {
		return failedState(fault.code, fault)
	}
	return a.runCommand(cmd, stop)
}

func stopSignal(name string) (syscall.Signal, error) {
	if name == "" {
		return syscall.SIGTERM, nil
	}
	sig, err := parseSignal(name)
	if err != nil {
		return syscall.SIGTERM, err
	}
	return sig, nil
}

func (a *Agent) runCommand(cmd *command, stop syscall.Signal) protocol.State {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return failedState(codeCannotRun, err)
	}
	defer null.Close()
	var w wires
	theirs, err := w.makeOutput(cmd, nil, nil)
	if err != nil {
		return failedState(codeCannotRun, fmt.Errorf("its output: %w", err))
	}
	out := w.outputs[0].pipeEnd
	defer out.Close()
	group := a.groups.open("program")
	p, err := a.children.start(cmd.path, cmd.argv, cmd.dir, cmd.env, []*os.File{null, theirs, theirs}, group.attr(cmd.id.credential()))
	theirs.Close()
	group.led(p)
	if err != nil {
		group.end()
		fault := cmd.failedStart(err)
		return failedState(fault.code, fault)
	}
	a.mu.Lock()
	a.program = p
	a.mu.Unlock()
	var written atomic.Uint64
	drained := make(chan struct{})
	drain, abandon := context.WithCancel(a.ctx)
	defer abandon()
	a.start("output", func() { defer close(drained); a.copyOutput(drain, out, &written) })
	a.setState(func(s *protocol.State) { s.Started = true })
	a.log.Info("the program has been started", "path", cmd.path, "pid", p.pid)
	if s, ok := a.c.Machine.(Settler); ok {
		a.start("settling", s.Settle)
	}

	a.awaitProgram(p, group, stop)
	oom := group.oomKills() > 0
	exited := &protocol.Exited{}
	if !group.end() {
		exited.Message = "something of it is still there after it was killed"
	}
	select {
	case <-p.done:
		exited.Code, exited.Signal = p.code()
	default:
		exited.Code, exited.Signal = 128+9, "SIGKILL"
	}
	// A shell whose child was killed gives that child's code.
	exited.OOM = oom && exited.Code == 128+9
	out.SetReadDeadline(time.Now().Add(drainPatience))
	patience := time.NewTimer(outputPatience)
	defer patience.Stop()
	select {
	case <-drained:
	case <-patience.C:
		a.log.Warn("the host does not read the program's last output")
	}
	a.log.Info("the program has ended", "code", exited.Code, "signal", exited.Signal)
	return protocol.State{Exited: exited, Written: written.Load()}
}

// awaitProgram returns when the program has ended: by itself, or because it was asked to, and killed after the grace.
func (a *Agent) awaitProgram(p *process, g *group, stop syscall.Signal) {
	kill := time.NewTimer(time.Hour)
	kill.Stop()
	defer kill.Stop()
	asked := false
	var deadline time.Time
	for {
		select {
		case <-p.done:
			return
		case grace := <-a.stops:
			if at := time.Now().Add(grace); !asked || at.Before(deadline) {
				deadline = at
				kill.Reset(grace)
			}
			if !asked {
				asked = true
				a.log.Info("stopping the program", "signal", signalName(stop), "grace", grace)
				p.signal(stop, false)
			}
		case <-kill.C:
			g.kill()
			hung := time.NewTimer(killPatience)
			defer hung.Stop()
			select {
			case <-p.done:
			case <-hung.C:
			}
			return
		case <-a.ctx.Done():
			g.kill()
			<-p.done
			return
		}
	}
}

// copyOutput copies what the program writes to the output port, as fast as the host reads it, until the pipe's end or
// ctx is done. A port that fails is opened again; nothing is left out.
func (a *Agent) copyOutput(ctx context.Context, from io.Reader, written *atomic.Uint64) {
	var port io.ReadWriteCloser
	defer func() {
		if port != nil {
			port.Close()
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		for rest := buf[:n]; len(rest) > 0 && ctx.Err() == nil; {
			if port == nil {
				var err error
				if port, err = a.c.Open(protocol.OutputPort); err != nil {
					port = nil
					a.pause(reopenPause)
					continue
				}
			}
			// What holds a write up is a host that does not read; closing the port ends it.
			p := port
			stop := context.AfterFunc(ctx, func() { p.Close() })
			m, err := p.Write(rest)
			stop()
			written.Add(uint64(m))
			rest = rest[m:]
			if err != nil {
				port.Close()
				port = nil
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				a.log.Warn("the program's output", "err", err)
			}
			return
		}
	}
}
