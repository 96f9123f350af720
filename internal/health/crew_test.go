package health

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Those who wait are used again, the one that was done last first, and no more than maxIdle wait.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		var done atomic.Int64
		at := func(idle, jobs int) {
			t.Helper()
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.idle) != idle || done.Load() != int64(jobs) {
				t.Errorf("%d wait after %d jobs, want %d after %d", len(c.idle), done.Load(), idle, jobs)
			}
		}
		job := func(takes time.Duration) { c.do(jobFunc(func() { time.Sleep(takes); done.Add(1) })) }
		for i := range 10 { // one after the other
			job(time.Second)
			at(0, i)
			time.Sleep(time.Second)
			at(1, i+1)
		}
		for i := range maxIdle + 10 { // at once, and each a second later than the one before
			job(time.Duration(i+1) * time.Second)
		}
		for i := range maxIdle + 10 {
			time.Sleep(time.Second)
			at(min(i+1, maxIdle), 11+i)
		}
		c.mu.Lock()
		last := c.idle[maxIdle-1]
		c.mu.Unlock()
		job(0)
		at(maxIdle, maxIdle+21)
		job(time.Second)
		c.mu.Lock()
		if c.idle[len(c.idle)-1] == last {
			t.Error("the last is not the first to go")
		}
		c.mu.Unlock()
		c.close()
		at(0, maxIdle+22)
	})
}

// Close waits for what is being done; what comes later is done all the same.
func TestCrewAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		start := time.Now()
		c.do(jobFunc(func() {}))
		synctest.Wait() // one waits
		c.do(jobFunc(func() { time.Sleep(time.Second) }))
		c.do(jobFunc(func() { time.Sleep(time.Minute) }))
		c.close()
		if took := time.Since(start); took != time.Minute {
			t.Errorf("closed after %v", took)
		}
		var wg sync.WaitGroup
		wg.Add(1)
		c.do(jobFunc(wg.Done))
		wg.Wait()
		synctest.Wait()
		if len(c.idle) != 0 {
			t.Errorf("%d wait after the end", len(c.idle))
		}
	})
}
