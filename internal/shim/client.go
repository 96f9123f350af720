package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/probe"
	"github.com/halevm/hale/internal/quiet"
	"github.com/halevm/hale/internal/shim/protocol"
)

// Bounds of the daemon's patience with a shim. A shim that does not answer in time is broken, and is ended.
const (
	handshakeTimeout = 5 * time.Second
	requestTimeout   = 10 * time.Second
	killTimeout      = 3 * time.Second
	deathTimeout     = 5 * time.Second
	probeMargin      = 2 * time.Second // beyond the time that a probe may take
)

// probeTime is how long a shim may take over a probe, which a starved host may make four times as long. An exec has the agent's time to
// clear up, too: a guest that hangs is to be told of as one, not as a shim that does not answer. It is less than what health gives a
// probe (10 s beyond four timeouts).
func probeTime(p health.Policy) time.Duration { return probe.MaxFactor*p.Timeout + clearingTime(p) }

// clearingTime is how long a shim may take to answer when a probe has had its time, or is withdrawn.
func clearingTime(p health.Policy) time.Duration {
	if p.Type == health.TypeExec {
		return probe.ExecCleanup + probeMargin
	}
	return probeMargin
}

// noticeRoom is how many notices may wait for their reader. The places of noticeOnce are for those that come once; lines and hints that
// find no other are dropped.
const (
	noticeOnce = 4
	noticeRoom = noticeOnce + 32
)

// The rate at which lines for the instance's log are taken: more than a shim's voices say together.
const (
	lineBurst = 2 * maxLines
	lineEvery = time.Second
)

// A pending request waits for its reply.
type pending struct {
	answer chan answer    // capacity 1
	begun  func()         // called when a Begun comes; it must not wait. nil: nobody asks
	result *health.Result // of a probe, to be filled in before the answer is sent; nil: it is none
}

// An answer is a reply, or the word that what was asked of a probe was filled in.
type answer struct {
	reply  protocol.Reply
	filled bool
}

// errGone is the answer to whoever asks a machine that has ended.
var errGone = fmt.Errorf("the machine is gone: %w", api.InvalidState)

// A Machine is the daemon's side of one shim. Its methods may be called from any goroutine, also after the machine's exit.
type Machine struct {
	log    *slog.Logger
	dir    *runDir
	record record
	proc   process
	vmm    int
	ports  []machine.Port

	conn    net.Conn
	writeMu sync.Mutex // one frame at a time
	frame   []byte     // that was sent last: room for the next

	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]pending // nil: the connection has ended

	asked    json.RawMessage // what was asked of the last probe; nil: none was
	askedFor health.Policy

	lines   *rate.Limiter // of lines for the instance's log
	dropped bool          // some were; the reader's
	hints   *rate.Limiter

	watched watcher

	notices chan machine.Notice
	gone    chan struct{} // closed when the exit has been delivered
}

// attach opens the control connection to a shim that runs, and begins to listen to it.
func attach(ctx context.Context, log *slog.Logger, dir *runDir, r record, proc process) (*Machine, error) {
	conn, welcome, err := dir.dial(ctx, r, protocol.Hello{Role: protocol.RoleControl})
	if err != nil {
		return nil, err
	}
	var over net.Conn = conn
	if q, err := quiet.New(conn); err == nil { // else no descriptors are left
		over = q
	}
	m := &Machine{
		log: log, dir: dir, record: r, proc: proc, vmm: welcome.VMM, ports: r.Ports, conn: over,
		pending: make(map[uint64]pending),
		notices: make(chan machine.Notice, noticeRoom),
		lines:   newRate(lineBurst, lineEvery),
		hints:   newRate(2*hintBurst, hintEvery/2),
		gone:    make(chan struct{}),
	}
	go m.read()
	return m, nil
}

// Notices delivers what the machine says about itself, in order; the channel is closed after Exited.
func (m *Machine) Notices() <-chan machine.Notice { return m.notices }

// Ports tells which host ports the published ports got.
func (m *Machine) Ports() []machine.Port { return m.ports }

// Stop asks the guest to end in an orderly way and returns when it was asked.
func (m *Machine) Stop(ctx context.Context, grace time.Duration) error {
	return m.call(ctx, requestTimeout, protocol.MethodStop, protocol.Stop{Grace: grace}, nil)
}

// Kill ends the machine at once: by asking the shim, and where that is of no use by killing the shim, which takes the
// hypervisor with it.
func (m *Machine) Kill(ctx context.Context) error {
	if err := m.call(ctx, killTimeout, protocol.MethodKill, nil, nil); err != nil && !errors.Is(err, errGone) {
		m.log.Warn("the shim does not answer: killing it", "err", err)
		if err := m.proc.kill(); err != nil {
			return fmt.Errorf("kill the shim: %w", err)
		}
	}
	select {
	case <-m.gone:
		return nil
	case <-time.After(killTimeout):
		if err := m.proc.kill(); err != nil {
			return fmt.Errorf("kill the shim: %w", err)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stat looks at a path in the guest.
func (m *Machine) Stat(ctx context.Context, path string, followLinks bool) (machine.FileInfo, error) {
	var info machine.FileInfo
	err := m.call(ctx, requestTimeout, protocol.MethodStat, protocol.Stat{Path: path, FollowLinks: followLinks}, &info)
	return info, err
}

// Stats tells what the machine uses now.
func (m *Machine) Stats(ctx context.Context) (machine.Stats, error) {
	var s machine.Stats
	err := m.call(ctx, requestTimeout, protocol.MethodStats, nil, &s)
	return s, err
}

// Probe asks the workload once. What keeps the shim from asking is inconclusive, with its cause. It calls started, once at most, when
// what costs CPU to begin is over; a shim of before version 3 does not say so. When ctx is done it tells the shim, and returns once that
// has answered, which it does when nothing of the probe is left: the next one may begin.
func (m *Machine) Probe(ctx context.Context, p health.Policy, started func()) health.Result {
	start := time.Now()
	inconclusive := func(cause string, err error) health.Result {
		return health.Result{Start: start, Duration: time.Since(start), Outcome: health.Inconclusive, Cause: cause, Reason: err.Error()}
	}
	question, err := m.question(p)
	if err != nil {
		return inconclusive(health.CauseShim, err)
	}
	var r health.Result
	err = m.ask(ctx, request{
		method: protocol.MethodProbe, params: question, result: &r, begun: started,
		timeout: probeTime(p), clearing: clearingTime(p),
	})
	switch {
	case ctx.Err() != nil:
		return inconclusive(health.CauseCutShort, context.Cause(ctx))
	case err != nil:
		return inconclusive(health.CauseShim, err)
	}
	return r
}

// question encodes a protocol.Probe, which is nearly always the one of the probe before.
func (m *Machine) question(p health.Policy) (json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked != nil && m.askedFor.Equal(p) {
		return m.asked, nil
	}
	policy, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	question, err := json.Marshal(protocol.Probe{Policy: policy})
	if err != nil {
		return nil, err
	}
	m.asked, m.askedFor = question, p
	return question, nil
}

// A request is what a shim is asked.
type request struct {
	method         string
	params, result any           // nil: none
	begun          func()        // as a pending's
	timeout        time.Duration // for the reply
	clearing       time.Duration // for the reply to one that was withdrawn; 0: nobody waits for it
}

// call asks for what is over once nobody waits for it.
func (m *Machine) call(ctx context.Context, timeout time.Duration, method string, params, result any) error {
	return m.ask(ctx, request{method: method, params: params, result: result, timeout: timeout})
}

// ask sends one request and waits for its reply, not longer than its times and ctx. A reply that comes too late is dropped.
func (m *Machine) ask(ctx context.Context, r request) error {
	req := protocol.Request{Method: r.method}
	result, probes := r.result.(*health.Result)
	if probes {
		req.Params = r.params.(json.RawMessage)
	} else if r.params != nil {
		b, err := json.Marshal(r.params)
		if err != nil {
			return fmt.Errorf("encode %s: %w", r.method, err)
		}
		req.Params = b
	}
	answer := make(chan answer, 1)
	m.mu.Lock()
	if m.pending == nil {
		m.mu.Unlock()
		return errGone
	}
	m.nextID++
	req.ID = m.nextID
	m.pending[req.ID] = pending{answer, r.begun, result}
	m.mu.Unlock()

	defer func() {
		m.mu.Lock()
		delete(m.pending, req.ID)
		m.mu.Unlock()
	}()
	var err error
	if probes {
		err = m.sendQuestion(req)
	} else {
		err = m.send(protocol.KindRequest, req)
	}
	if err != nil {
		return fmt.Errorf("ask the shim to %s: %w", r.method, err)
	}
	timer := time.NewTimer(r.timeout)
	defer timer.Stop()
	select {
	case a, ok := <-answer:
		switch {
		case !ok:
			return errGone
		case a.reply.Error != nil:
			return a.reply.Error
		case r.result == nil || a.filled:
			return nil
		}
		if err := json.Unmarshal(a.reply.Result, r.result); err != nil {
			return fmt.Errorf("the shim's answer to %s: %w", r.method, err)
		}
		return nil
	case <-ctx.Done():
		m.cancel(req.ID)
		if r.clearing > 0 {
			timer.Reset(r.clearing)
			select {
			case <-answer:
			case <-timer.C:
				m.log.Warn("the shim does not end what was withdrawn", "method", r.method, "for", r.clearing)
			}
		}
		return context.Cause(ctx)
	case <-timer.C:
		m.cancel(req.ID)
		return fmt.Errorf("the shim did not answer to %s within %v: %w", r.method, r.timeout, api.Unavailable)
	}
}

func (m *Machine) cancel(id uint64) {
	if err := m.send(protocol.KindCancel, protocol.Cancel{ID: id}); err != nil {
		m.log.Debug("cancel a request", "err", err)
	}
}

func (m *Machine) send(k protocol.Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	m.writeMu.Lock()
	defer m.writeMu.Unlock()
	return sendFrame(m.conn, append(protocol.Begin(nil, k), b...), requestTimeout)
}

// sendQuestion sends a request for a probe.
func (m *Machine) sendQuestion(r protocol.Request) error {
	m.writeMu.Lock()
	defer m.writeMu.Unlock()
	m.frame = appendQuestion(protocol.Begin(m.frame, protocol.KindRequest), r.ID, r.Params)
	return sendFrame(m.conn, m.frame, requestTimeout)
}

// read hands out replies and notices until the connection ends, and then tells how the machine ended.
func (m *Machine) read() {
	defer close(m.gone)
	defer close(m.notices)
	exit, exited := m.readFrames()
	m.hangUp()
	m.watched.end()

	// The shim ends right after its last notice. Whoever is told of the exit may rely on nothing being left.
	m.bury()
	m.proc.close()
	if !exited {
		exit = m.dir.exit(m.record)
	}
	m.dir.clean()
	m.notices <- machine.Notice{Kind: machine.Exited, Time: exit.Time, Exit: exit}
}

// hangUp ends the connection, and lets go whoever waits for a reply.
func (m *Machine) hangUp() {
	m.conn.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pending {
		close(p.answer)
	}
	m.pending = nil
}

func (m *Machine) readFrames() (machine.Exit, bool) {
	seen := make(map[machine.NoticeKind]bool)
	frames := protocol.NewReader(m.conn, frameBuffer)
	var found health.Result // the last
	for {
		kind, payload, err := frames.Next()
		if err != nil {
			m.log.Debug("the shim's connection ended", "err", err)
			return machine.Exit{}, false
		}
		switch kind {
		case protocol.KindReply:
			if id, ok := readAnswer(payload, &found); ok && m.filled(id, &found) {
				continue
			}
			var r protocol.Reply
			if json.Unmarshal(payload, &r) != nil {
				return machine.Exit{}, false
			}
			m.replied(r)
		case protocol.KindBegun:
			var b protocol.Begun
			if json.Unmarshal(payload, &b) != nil {
				return machine.Exit{}, false
			}
			m.begun(b.ID)
		case protocol.KindNotice:
			var n machine.Notice
			if json.Unmarshal(payload, &n) != nil || seen[n.Kind] {
				return machine.Exit{}, false
			}
			switch n.Kind {
			case machine.Told:
				m.told(n)
				continue
			case machine.Hinted:
				m.hinted(n)
				continue
			}
			switch n.Kind {
			case machine.Exited:
				return n.Exit, true
			case machine.AgentReady, machine.Started, machine.NetworkUp: // the others are not remembered: there is no end to them
				seen[n.Kind] = true
				m.notices <- n
			}
		default:
			m.log.Warn("the shim does not speak the protocol", "kind", kind)
			return machine.Exit{}, false
		}
	}
}

// replied hands a reply to whoever waits for it.
func (m *Machine) replied(r protocol.Reply) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.pending[r.ID]; ok {
		delete(m.pending, r.ID)
		p.answer <- answer{reply: r}
	}
}

// filled hands over what a probe found. It is false where something else was asked.
func (m *Machine) filled(id uint64, r *health.Result) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pending[id]
	if ok && p.result == nil {
		return false
	}
	if ok { // else nobody waits any more
		delete(m.pending, id)
		*p.result = *r
		p.answer <- answer{filled: true}
	}
	return true
}

// begun tells whoever waits for a reply that its probe has begun, once.
func (m *Machine) begun(id uint64) {
	m.mu.Lock()
	p := m.pending[id]
	if p.begun != nil {
		m.pending[id] = pending{answer: p.answer, result: p.result}
	}
	m.mu.Unlock()
	if p.begun != nil {
		p.begun()
	}
}

// told passes on a line for the instance's log. An owner that is busy must not hold up the replies that it waits for, and a shim is not
// trusted to keep to its own bounds.
func (m *Machine) told(n machine.Notice) {
	if len(m.notices) >= noticeRoom-noticeOnce || !m.lines.Allow() {
		if !m.dropped {
			m.dropped = true
			m.log.Warn("lines for the instance's log are dropped: there are too many")
		}
		return
	}
	m.dropped = false
	n.Message = clipLine(n.Message, maxLine)
	m.notices <- n
}

// hinted passes on what the guest says of the watched port. A shim keeps to half of this rate, and an owner that does not read is ending
// the machine.
func (m *Machine) hinted(n machine.Notice) {
	if len(m.notices) < noticeRoom-noticeOnce && m.hints.Allow() {
		m.notices <- n
	}
}

// bury waits for the shim's process to end, kills it where it does not, and sees that the hypervisor has gone with it.
func (m *Machine) bury() {
	ctx, cancel := context.WithTimeout(context.Background(), deathTimeout)
	defer cancel()
	if err := m.proc.wait(ctx); err != nil {
		m.log.Warn("the shim lives on without its connection: killing it", "pid", m.record.PID)
		if err := m.proc.kill(); err != nil {
			m.log.Error("kill the shim", "pid", m.record.PID, "err", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), deathTimeout)
		defer cancel()
		if err := m.proc.wait(ctx); err != nil {
			m.log.Error("the shim cannot be killed", "pid", m.record.PID, "err", err)
		}
	}
	m.dir.awaitVMM(m.vmm)
}
