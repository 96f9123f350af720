package guest

import "sync"

// A queue passes events on in order, however late they are taken. What a guest can put in is a handful for each session,
// and sessions begin at the host's pace.
type queue struct {
	out  chan Event
	done chan struct{} // closed with out

	mu    sync.Mutex
	list  []Event
	ended bool
	wake  chan struct{} // capacity 1
	quit  chan struct{} // closed: nobody takes them any more
	once  sync.Once
}

func newQueue() *queue {
	q := &queue{out: make(chan Event), done: make(chan struct{}), wake: make(chan struct{}, 1), quit: make(chan struct{})}
	go q.run()
	return q
}

func (q *queue) add(e Event) {
	q.mu.Lock()
	q.list = append(q.list, e)
	q.mu.Unlock()
	q.signal()
}

// end closes the channel once everything has been taken.
func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.signal()
}

// abandon drops what was not taken.
func (q *queue) abandon() { q.once.Do(func() { close(q.quit) }) }

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) run() {
	defer close(q.done)
	defer close(q.out)
	for {
		q.mu.Lock()
		list, ended := q.list, q.ended
		q.list = nil
		q.mu.Unlock()
		for _, e := range list {
			select {
			case q.out <- e:
			case <-q.quit:
				return
			}
		}
		if len(list) > 0 {
			continue
		}
		if ended {
			return
		}
		select {
		case <-q.wake:
		case <-q.quit:
			return
		}
	}
}
