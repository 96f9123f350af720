package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/flow"
	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// execSession is a program in the guest, as internal/guest runs it.
type execSession interface {
	Stdin() io.WriteCloser
	Stdout() io.Reader
	Stderr() io.Reader
	Resize(ctx context.Context, rows, cols uint16) error
	Signal(ctx context.Context, name string) error
	Wait(ctx context.Context) (machine.ExecExit, error)
	Close() error
}

// converseExec runs one program for one connection. A client that goes away kills it.
func (s *server) converseExec(conn *net.UnixConn, h protocol.Hello, w protocol.Welcome) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	session, err := s.handler.exec(ctx, *h.Exec)
	conn.SetDeadline(time.Now().Add(handshakeTimeout)) // a guest that hangs has used up that of the handshake
	w.Error = protocol.ErrorOf(err)
	if err := protocol.WriteJSON(conn, protocol.KindWelcome, w); err != nil || w.Error != nil {
		if session != nil {
			session.Close()
		}
		return
	}
	conn.SetDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(aLongTimeAgo) })()

	var writeMu sync.Mutex
	send := func(k protocol.Kind, v any) {
		writeMu.Lock()
		defer writeMu.Unlock()
		protocol.WriteJSON(conn, k, v) // an error is a client that has gone, which feed learns
	}
	grant := func(int) {}
	if w.Version >= protocol.VersionCredit {
		grant = func(n int) { send(protocol.KindCredit, protocol.ExecCredit{Bytes: n}) }
	}
	input := flow.NewQueue(stdinWindow, grant)
	grant(stdinWindow)

	var wg sync.WaitGroup
	defer wg.Wait()
	defer session.Close()
	wg.Go(func() {
		defer cancel() // the client is gone, or the program has ended and the connection with it
		defer input.Drop(io.ErrClosedPipe)
		feed(ctx, conn, session, input)
	})
	wg.Go(func() { pour(session.Stdin(), input) })
	wg.Go(func() { watchHangup(ctx, conn, cancel) })
	var out sync.WaitGroup
	out.Go(func() { spill(conn, &writeMu, protocol.KindStdout, session.Stdout()) })
	out.Go(func() { spill(conn, &writeMu, protocol.KindStderr, session.Stderr()) })
	exit, err := session.Wait(ctx)
	if ctx.Err() != nil {
		session.Close() // frees the two readers
	}
	out.Wait()
	if ctx.Err() == nil {
		send(protocol.KindExit, protocol.ExecEnd{Exit: exit, Error: protocol.ErrorOf(lostAgent(err))})
	}
	cancel()
}

var errLostAgent = fmt.Errorf("the machine has ended meanwhile, or lost its guest agent: %w", api.InvalidState)

// lostAgent makes no fault of ours of a machine that ended, or of a guest that did away with its agent.
func lostAgent(err error) error {
	if errors.Is(err, guest.ErrNotConnected) {
		return errLostAgent
	}
	return err
}

// stdinWindow is how much of an exec's input waits here for a program that does not read.
const stdinWindow = 256 << 10

// watchHangup calls gone when the client has closed its end, which feed does not see while it waits: for a guest that does not
// answer to a signal, or with an older client for a program that does not read its input.
func watchHangup(ctx context.Context, conn *net.UnixConn, gone func()) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var events int16
		err := raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			unix.Poll(p, 0)
			events = p[0].Revents
		})
		if err != nil || events != 0 {
			gone()
			return
		}
	}
}

// feed takes in what the client sends, until it goes away. Input goes into the queue, so that a program that does not read
// delays nothing else.
func feed(ctx context.Context, conn io.Reader, session execSession, input *flow.Queue) {
	for {
		kind, payload, err := protocol.Read(conn)
		if err != nil {
			return
		}
		switch kind {
		case protocol.KindStdin:
			if len(payload) == 0 {
				input.End(io.EOF)
			} else if input.Put(ctx, payload, 0) != nil {
				return
			}
		case protocol.KindControl:
			var c protocol.ExecControl
			if json.Unmarshal(payload, &c) != nil {
				return
			}
			if c.Signal != "" {
				session.Signal(ctx, c.Signal)
			}
			if c.Rows > 0 && c.Cols > 0 {
				session.Resize(ctx, c.Rows, c.Cols)
			}
		default:
			return
		}
	}
}

// pour passes the input on to the program, to its end. What a program does not read any more is dropped, as by a closed pipe.
func pour(stdin io.WriteCloser, input io.Reader) {
	if _, err := io.Copy(stdin, input); err == nil {
		stdin.Close()
	}
	io.Copy(io.Discard, input)
}

// spill sends a stream to the client as it comes. A client that stalls stalls this stream, and through its window the program.
func spill(conn io.Writer, mu *sync.Mutex, k protocol.Kind, r io.Reader) {
	buf := make([]byte, protocol.MaxChunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			mu.Lock()
			werr := protocol.Write(conn, k, buf[:n])
			mu.Unlock()
			if werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
