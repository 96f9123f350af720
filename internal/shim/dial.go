package shim

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// What a guest that is just coming up costs: a SYN that it could not take yet is lost, and TCP sends the next a second later. So the SYN
// waits for the guest's first frame, by which it announces its address, and until it has answered once (the address is announced a moment
// before the kernel heeds it) each try is given less than that second, and more than the one before.
const (
	synAgain = time.Second
	firstTry = 50 * time.Millisecond
)

// dial opens a connection to a port of the guest for a probe.
func (r *run) dial(ctx context.Context, port uint16) (net.Conn, error) {
	if r.net == nil {
		return nil, errors.New("the instance has no network")
	}
	r.mu.Lock()
	answered := r.answered
	r.mu.Unlock()
	if answered {
		return r.net.Dial(ctx, port)
	}
	conn, err := firstDial(ctx, r.net.Seen(), func(ctx context.Context) (net.Conn, error) { return r.net.Dial(ctx, port) })
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		r.mu.Lock()
		r.answered = true
		r.mu.Unlock()
	}
	return conn, err
}

// firstDial is dial for a guest that has not answered yet; seen is closed by its first frame.
func firstDial(ctx context.Context, seen <-chan struct{}, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	wait := time.NewTimer(synAgain)
	defer wait.Stop()
	select {
	case <-seen:
	case <-wait.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for patience := firstTry; patience < synAgain; patience *= 2 {
		try, cancel := context.WithTimeout(ctx, patience)
		conn, err := dial(try)
		over := try.Err() != nil
		cancel()
		if err == nil || !over || ctx.Err() != nil {
			return conn, err
		}
	}
	return dial(ctx)
}
