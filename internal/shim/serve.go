package shim

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/quiet"
	"github.com/halevm/hale/internal/shim/protocol"
)

// Bounds of what one shim serves at a time. The daemon is one client; a person's execs are the rest.
const (
	maxConns    = 128
	frameBuffer = 1 << 10 // what a probe's question or answer takes comes in one read
	writeLimit  = 10 * time.Second
	maxResult   = protocol.MaxPayload - 1<<10 // of a reply, which has a few words around it
)

// How many requests are answered at a time on one control connection. Those of a kind that the guest's agent answers may all hang with
// it, and leave the others their room; what is more is refused, so that whatever comes next is read: the word that one of them is
// withdrawn, or that the machine is to be killed.
const (
	maxLooks  = 32 // at paths
	maxProbes = 16
	maxKills  = 4
	maxOthers = 12
)

// A room is what the requests of some methods have their places in.
type room struct {
	what  string
	taken chan struct{} // its capacity is how many there may be
}

func newRoom(what string, most int) room { return room{what, make(chan struct{}, most)} }

func (r room) full() error {
	return fmt.Errorf("%d %s are under way on this connection, which is the most there may be: %w", cap(r.taken), r.what, api.Unavailable)
}

// handler answers the requests of control connections and runs execs; *run is the real one.
type handler interface {
	// handle answers one request; begun may be called once before it returns.
	handle(ctx context.Context, method string, params json.RawMessage, begun func()) (any, error)
	exec(ctx context.Context, r machine.ExecRequest) (execSession, error)
}

// server is the shim's end of the socket.
type server struct {
	ln      *net.UnixListener
	secret  string
	peer    int // uid that is served
	welcome protocol.Welcome
	handler handler

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	conns   map[*net.UnixConn]bool
	notices []machine.Notice
	lines   []machine.Notice // of kind Told, which nobody has taken yet
	hinted  hint
	changed chan struct{} // closed and replaced when a notice is added
}

// listen binds the socket below the current directory, where paths are short. It is for whoever has the uid peer and knows the secret.
func listen(name, secret string, peer int) (*server, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: name})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &server{
		ln: ln, secret: secret, peer: peer, ctx: ctx, cancel: cancel, conns: make(map[*net.UnixConn]bool),
		hinted: hint{rate: newRate(hintBurst, hintEvery)}, changed: make(chan struct{}),
	}, nil
}

// serve answers connections until close.
func (s *server) serve(h handler, w protocol.Welcome) {
	s.handler, s.welcome = h, w
	s.wg.Go(func() {
		for {
			conn, err := s.ln.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no descriptors left: what is open goes on, and the daemon tries again
				select {
				case <-time.After(100 * time.Millisecond):
					continue
				case <-s.ctx.Done():
					return
				}
			}
			if !s.add(conn) {
				conn.Close()
				continue
			}
			s.wg.Go(func() {
				defer s.remove(conn)
				s.converse(conn)
			})
		}
	})
}

func (s *server) add(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= maxConns {
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *server) remove(conn *net.UnixConn) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
}

// close ends everything. Control connections are given the time to deliver the last notice.
func (s *server) close() {
	s.ln.Close()
	s.cancel()
	s.wg.Wait()
}

// notify tells n to everyone who is connected, and to everyone who will be.
func (s *server) notify(n machine.Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notices = append(s.notices, n)
	s.wake()
}

// wake has the connections look for what is new. The caller holds s.mu.
func (s *server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// next returns the notices from the told-th on, the lines that nobody has taken if they are wanted, and what is closed when there is more.
func (s *server) next(told int, lines bool) ([]machine.Notice, []machine.Notice, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var taken []machine.Notice
	if lines {
		taken, s.lines = s.lines, nil
	}
	return s.notices[told:], taken, s.changed
}

// putBack returns lines that did not reach whoever took them.
func (s *server) putBack(lines []machine.Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(lines, s.lines...)
	s.lines = s.lines[max(0, len(s.lines)-maxLines):]
	s.wake()
}

func (s *server) converse(conn *net.UnixConn) {
	conn.SetDeadline(time.Now().Add(handshakeTimeout))
	var hello protocol.Hello
	if err := protocol.Expect(conn, protocol.KindHello, &hello); err != nil {
		return
	}
	w := s.welcome
	if err := s.admit(conn, hello); err != nil {
		w = protocol.Welcome{Error: protocol.ErrorOf(err)}
	}
	w.Version = min(hello.MaxVersion, protocol.MaxVersion)
	if hello.Role == protocol.RoleExec && w.Error == nil {
		s.converseExec(conn, hello, w)
		return
	}
	if err := protocol.WriteJSON(conn, protocol.KindWelcome, w); err != nil || w.Error != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	s.converseControl(conn, w.Version)
}

// admit lets in whoever runs as the daemon's user, knows the secret, and speaks a version that we speak.
func (s *server) admit(conn *net.UnixConn, h protocol.Hello) error {
	cred, err := peer(conn)
	if err != nil {
		return err
	}
	if int(cred.Uid) != s.peer {
		return fmt.Errorf("uid %d is not served: %w", cred.Uid, api.Unauthorized)
	}
	if subtle.ConstantTimeCompare([]byte(h.Secret), []byte(s.secret)) != 1 {
		return fmt.Errorf("wrong secret: %w", api.Unauthorized)
	}
	if h.MaxVersion < protocol.MinVersion || h.MinVersion > protocol.MaxVersion {
		return fmt.Errorf("the shim speaks versions %d to %d, the client %d to %d: %w",
			protocol.MinVersion, protocol.MaxVersion, h.MinVersion, h.MaxVersion, api.Unsupported)
	}
	if h.Role != protocol.RoleControl && (h.Role != protocol.RoleExec || h.Exec == nil) {
		return fmt.Errorf("role %q: %w", h.Role, api.Unsupported)
	}
	return nil
}

// A job is one request that is to be answered.
type job struct {
	ctx     context.Context
	request protocol.Request
	room    room // in which it has a place
}

// A duplex is a connection of which one direction can be ended alone.
type duplex interface {
	net.Conn
	CloseRead() error
}

// control is one control connection.
type control struct {
	server  *server
	conn    duplex
	version int
	ctx     context.Context
	rooms   map[string]room // by method
	others  room            // of the rest
	jobs    chan job        // taken by a worker that is idle
	idle    atomic.Int32    // workers, one at most

	writeMu sync.Mutex
	frame   []byte // that was sent last: room for the next

	mu      sync.Mutex
	cancels map[uint64]*withdrawal // of the requests that are not answered yet; nil: the connection has ended
}

func (s *server) converseControl(client *net.UnixConn, version int) {
	var conn duplex = client
	if q, err := quiet.New(client); err == nil { // else no descriptors are left. The daemon was let in, and takes an end for the machine's.
		conn = q
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(aLongTimeAgo) })()
	c := &control{
		server: s, conn: conn, version: version, ctx: ctx, jobs: make(chan job), cancels: make(map[uint64]*withdrawal),
		rooms: map[string]room{
			protocol.MethodStat: newRoom("looks at paths", maxLooks), protocol.MethodProbe: newRoom("probes", maxProbes),
			protocol.MethodKill: newRoom("kills", maxKills), protocol.MethodStop: newRoom("stops", maxKills),
		},
		others: newRoom("requests", maxOthers),
	}
	defer context.AfterFunc(ctx, c.endAll)()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := c.tell(); err != nil {
			cancel()
		}
	})
	c.listen(&wg)
	cancel()
}

// tell sends the notices, those that have already happened first. When the shim ends it sends the last ones.
func (c *control) tell() error {
	for told, last := 0, false; ; {
		notices, lines, changed := c.server.next(told, c.version >= protocol.VersionTold)
		for i, n := range lines {
			if err := c.send(protocol.KindNotice, n); err != nil {
				c.server.putBack(lines[i:])
				return err
			}
		}
		for _, n := range notices {
			if err := c.send(protocol.KindNotice, n); err != nil {
				return err
			}
			told++
		}
		if len(notices)+len(lines) > 0 {
			continue
		}
		if c.version >= protocol.VersionHinted {
			if n := c.server.takeHint(); n != nil {
				if err := c.send(protocol.KindNotice, n); err != nil {
					c.server.putBackHint(n)
					return err
				}
			}
		}
		if last {
			return nil
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			if c.server.ctx.Err() == nil {
				return nil // the client has gone
			}
			last = true
		}
	}
}

// listen answers requests until the connection ends.
func (c *control) listen(wg *sync.WaitGroup) {
	frames := protocol.NewReader(c.conn, frameBuffer)
	var last recall
	for {
		kind, payload, err := frames.Next()
		if err != nil {
			return
		}
		switch kind {
		case protocol.KindRequest:
			r, err := last.decode(payload)
			if err != nil {
				return
			}
			room := c.room(r.Method)
			select {
			case room.taken <- struct{}{}:
			default:
				c.reply(protocol.Reply{ID: r.ID, Error: protocol.ErrorOf(room.full())})
				continue
			}
			j := job{c.begin(r.ID), r, room}
			select {
			case c.jobs <- j:
			default:
				wg.Go(func() { c.work(j) })
			}
		case protocol.KindCancel:
			var r protocol.Cancel
			if json.Unmarshal(payload, &r) != nil {
				return
			}
			c.end(r.ID)
		default:
			return
		}
	}
}

func (c *control) room(method string) room {
	if r, ok := c.rooms[method]; ok {
		return r
	}
	return c.others
}

// work answers a request. One worker stays for the next: its stack, which a probe has made large, is used again.
func (c *control) work(j job) {
	for {
		c.answer(j.ctx, j.request)
		c.end(j.request.ID)
		<-j.room.taken
		j = job{}
		if c.idle.Add(1) > 1 {
			c.idle.Add(-1)
			return
		}
		select {
		case j = <-c.jobs:
			c.idle.Add(-1)
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *control) begin(id uint64) context.Context {
	w := new(withdrawal)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancels == nil {
		w.end()
		return w
	}
	if before := c.cancels[id]; before != nil { // a client that gives two requests one number can withdraw the second
		before.end()
	}
	c.cancels[id] = w
	return w
}

func (c *control) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.cancels[id]; ok {
		delete(c.cancels, id)
		w.end()
	}
}

func (c *control) endAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.cancels {
		w.end()
	}
	c.cancels = nil
}

func (c *control) answer(ctx context.Context, r protocol.Request) {
	reply := protocol.Reply{ID: r.ID}
	result, err := c.server.handler.handle(ctx, r.Method, r.Params, func() {
		if c.version >= protocol.VersionBegun {
			c.send(protocol.KindBegun, protocol.Begun{ID: r.ID}) // where it fails the reply does, too
		}
	})
	if found, ok := result.(health.Result); ok && err == nil {
		if sent, err := c.found(r.ID, &found); sent {
			c.replied(err)
			return
		}
	}
	if err == nil && result != nil {
		reply.Result, err = json.Marshal(result)
	}
	if len(reply.Result) > maxResult { // what cannot be sent is no reason to hang up, which the daemon takes for the machine's end
		reply.Result, err = nil, fmt.Errorf("the answer to %s has %d bytes, and at most %d can be sent", r.Method, len(reply.Result), maxResult)
	}
	reply.Error = protocol.ErrorOf(err)
	c.reply(reply)
}

func (c *control) reply(r protocol.Reply) { c.replied(c.send(protocol.KindReply, r)) }

// replied ends the connection where a reply failed.
func (c *control) replied(err error) {
	if err != nil {
		c.conn.CloseRead()
	}
}

// found sends what a probe found, if it is what probes nearly always find.
func (c *control) found(id uint64, r *health.Result) (sent bool, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.frame, sent = appendAnswer(protocol.Begin(c.frame, protocol.KindReply), id, r)
	if sent {
		err = sendFrame(c.conn, c.frame, writeLimit)
	}
	return sent, err
}

func (c *control) send(k protocol.Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return sendFrame(c.conn, append(protocol.Begin(nil, k), b...), writeLimit)
}
