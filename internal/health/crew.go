package health

import "sync"

// A crew is the goroutines that loops and their probes run in, and what is to be done when one is to end. One that is done waits for the
// next job, so that its stack, which a probe has made large, is used again.
type crew struct {
	mu   sync.Mutex
	idle []chan job // the one that was done last is the first to go
	over bool
	wg   sync.WaitGroup
}

// maxIdle is how many wait: as many as thousands of instances have at work at a time, for a new one has its stack grown step by step. Many
// probes that hang at a time would leave many behind.
const maxIdle = 128

// A job is what one of the crew does.
type job interface{ do() }

type jobFunc func()

func (f jobFunc) do() { f() }

// do has a job done, which does not panic. After close nobody waits for it: it is that of a probe whose end was waited for, and which left
// somebody behind who still uses its context.
func (c *crew) do(j job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n := len(c.idle); {
	case n > 0:
		member := c.idle[n-1]
		c.idle = c.idle[:n-1]
		member <- j // a buffer of one
	case c.over:
		go j.do()
	default:
		c.wg.Go(func() { c.work(j) })
	}
}

func (c *crew) work(j job) {
	next := make(chan job, 1)
	for j != nil {
		j.do()
		j = nil // its memory is not kept while this waits
		c.mu.Lock()
		if c.over || len(c.idle) == maxIdle {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, next)
		c.mu.Unlock()
		j = <-next
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
