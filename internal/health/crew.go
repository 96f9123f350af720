package health

import "sync"

// A crew is the goroutines that probes run in, and what is to be done when one is to end. One that is done waits for the next job, so
// that its stack, which a probe has made large, is used again.
type crew struct {
	mu   sync.Mutex
	idle []chan func() // the one that was done last is the first to go
	over bool
	wg   sync.WaitGroup
}

// maxIdle is how many wait. Many probes that hang at a time would leave many behind.
const maxIdle = 64

// do runs a job, which does not panic. After close nobody waits for it: it is that of a probe whose end was waited for, and which left
// somebody behind who still uses its context.
func (c *crew) do(job func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n := len(c.idle); {
	case n > 0:
		member := c.idle[n-1]
		c.idle = c.idle[:n-1]
		member <- job // a buffer of one
	case c.over:
		go job()
	default:
		c.wg.Go(func() { c.work(job) })
	}
}

func (c *crew) work(job func()) {
	next := make(chan func(), 1)
	for job != nil {
		job()
		job = nil // its memory is not kept while this waits
		c.mu.Lock()
		if c.over || len(c.idle) == maxIdle {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, next)
		c.mu.Unlock()
		job = <-next
	}
}

// close ends those that wait, and waits for the others.
func (c *crew) close() {
	c.mu.Lock()
	c.over = true
	for _, member := range c.idle {
		close(member)
	}
	c.idle = nil
	c.mu.Unlock()
	c.wg.Wait()
}
