package shim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/shim/protocol"
)

const (
	keptRemarks   = 64               // for a daemon that is away
	maxRemarks    = 16               // in one answer
	maxRemark     = 512              // bytes of one
	remarkWait    = time.Minute      // for a remark, before an answer without any
	remarksPause  = time.Second      // between two answers that had some
	remarkTimeout = 75 * time.Second // of the daemon, for an answer
)

// remarks are what the shim has to say to the instance's log. The daemon writes that log, and may be away: the newest are kept until
// one has acknowledged them.
type remarks struct {
	mu    sync.Mutex
	lines []string // the last of them has the number last
	last  uint64
	lost  int           // that were not kept, before lines[0]
	news  chan struct{} // closed at the next one; nil: nobody waits
}

func (r *remarks) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.lines = append(r.lines, line)
	if len(r.lines) > keptRemarks {
		r.lines = r.lines[1:]
		r.lost++
	}
	if r.news != nil {
		close(r.news)
		r.news = nil
	}
}

// after acknowledges what came up to number n, and waits for more.
func (r *remarks) after(ctx context.Context, n uint64) protocol.Remarks {
	timeout := time.NewTimer(remarkWait)
	defer timeout.Stop()
	for {
		out, news := r.take(n)
		if len(out.Lines) > 0 {
			return out
		}
		select {
		case <-news:
		case <-timeout.C:
			return out
		case <-ctx.Done():
			return out
		}
	}
}

func (r *remarks) take(n uint64) (protocol.Remarks, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.last - uint64(len(r.lines)) // the number before lines[0]
	if n > first && n <= r.last {
		r.lines, r.lost = append([]string(nil), r.lines[n-first:]...), 0
		first = n
	}
	count := min(len(r.lines), maxRemarks)
	out := protocol.Remarks{Last: first + uint64(count), Lines: append([]string(nil), r.lines[:count]...)}
	if count > 0 && r.lost > 0 {
		out.Lines[0] += fmt.Sprintf(" (%d before it were not kept)", r.lost)
	}
	if r.news == nil {
		r.news = make(chan struct{})
	}
	return out, r.news
}

// Remarks delivers what the machine has to say to its instance's log, in order; the channel is closed after the last.
func (m *Machine) Remarks() <-chan string { return m.remarks }

// listen asks for remarks until the machine is gone. A shim of an earlier build has none.
func (m *Machine) listen() {
	defer close(m.remarks)
	var ask protocol.RemarksAfter
	for {
		var said protocol.Remarks
		err := m.call(context.Background(), remarkTimeout, protocol.MethodRemarks, ask, &said)
		if errors.Is(err, errGone) || errors.Is(err, api.Unimplemented) {
			return
		}
		if err == nil {
			ask.After = said.Last
		}
		for _, line := range said.Lines[:min(len(said.Lines), maxRemarks)] {
			select {
			case m.remarks <- plain(line):
			case <-m.gone:
				return
			}
		}
		if err != nil || len(said.Lines) > 0 {
			select {
			case <-time.After(remarksPause):
			case <-m.gone:
				return
			}
		}
	}
}

// plain is a line of bounded length without control characters: the shim is not trusted.
func plain(line string) string {
	line = strings.ToValidUTF8(line[:min(len(line), maxRemark)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, line)
}
