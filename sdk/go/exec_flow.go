package hale

import "sync"

// maxAhead is how many bytes of output are read before Copy asks for them, so that credit for input is seen behind them.
const maxAhead = 1 << 20

// A credit is how much input the server has room for. One that is free is a server that does not say.
type credit struct {
	mu      sync.Mutex
	changed sync.Cond
	free    bool
	n       int
	err     error
}

func newCredit(free bool) *credit {
	c := &credit{free: free}
	c.changed.L = &c.mu
	return c
}

// take waits until something may be sent, and takes up to most bytes of it.
func (c *credit) take(most int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n <= 0 && !c.free && c.err == nil {
		c.changed.Wait()
	}
	if c.err != nil {
		return 0, c.err
	}
	if c.free {
		return most, nil
	}
	most = min(most, c.n)
	c.n -= most
	return most, nil
}

func (c *credit) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += max(n, 0)
	c.changed.Broadcast()
}

// close ends every take with err; the first counts.
func (c *credit) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.changed.Broadcast()
}

// arrivals are messages that came and that Copy has not asked for yet.
type arrivals struct {
	mu       sync.Mutex
	changed  sync.Cond
	messages [][]byte
	size     int
	err      error // after the messages
}

func newArrivals() *arrivals {
	a := new(arrivals)
	a.changed.L = &a.mu
	return a
}

// put adds a message once there is room, and reports whether there still is somebody who reads.
func (a *arrivals) put(b []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.size > maxAhead && a.err == nil {
		a.changed.Wait()
	}
	if a.err != nil {
		return false
	}
	a.messages, a.size = append(a.messages, b), a.size+len(b)
	a.changed.Broadcast()
	return true
}

func (a *arrivals) next() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.messages) == 0 && a.err == nil {
		a.changed.Wait()
	}
	if len(a.messages) == 0 {
		return nil, a.err
	}
	b := a.messages[0]
	a.messages, a.size = a.messages[1:], a.size-len(b)
	a.changed.Broadcast()
	return b, nil
}

// end is what comes after the messages; the first counts.
func (a *arrivals) end(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
	a.changed.Broadcast()
}
