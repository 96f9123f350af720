package shim

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/network"
)

// Bounds of what a shim has to say for the instance's own log.
const (
	maxLines   = 64               // that wait for a daemon; of more, the oldest are dropped
	maxLine    = 512              // bytes
	voiceBurst = 20               // lines of one voice at once
	voiceEvery = 10 * time.Second // and one more in so long
)

// A voice says lines for the instance's own log about one subject, at a bounded rate: a guest may be what makes it speak. It may be used
// from any goroutine, and never waits.
type voice struct {
	server  *server
	rate    *rate.Limiter
	leftOut int // guarded by server.mu
}

// voice returns one for another subject.
func (s *server) voice() *voice {
	return &voice{server: s, rate: newRate(voiceBurst, voiceEvery)}
}

// voiceOfRefusals returns the one for what the network refuses, which bounds that itself, each kind for itself.
func (s *server) voiceOfRefusals() *voice {
	return &voice{server: s, rate: newRate(network.ToldBurst, network.ToldEvery)}
}

// newRate lets through so many at once, and one more in so long.
func newRate(burst int, each time.Duration) *rate.Limiter {
	return rate.NewLimiter(rate.Every(each), burst)
}

// say says one line. What is over the rate is left out, and the next line tells how much that was.
func (v *voice) say(level slog.Level, message string) {
	s := v.server
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !v.rate.AllowN(now, 1) {
		v.leftOut++
		return
	}
	message = clipLine(message, maxLine-64) // the rest is for what follows
	if v.leftOut > 0 {
		message += fmt.Sprintf(" (%d lines of the kind were left out before)", v.leftOut)
		v.leftOut = 0
	}
	s.lines = append(s.lines, machine.Notice{Kind: machine.Told, Time: now, Level: level, Message: message})
	s.lines = s.lines[max(0, len(s.lines)-maxLines):]
	s.wake()
}

// clipLine makes one line of what may hold a guest's words.
func clipLine(s string, most int) string {
	s = strings.ToValidUTF8(s[:min(len(s), most)], "")
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
