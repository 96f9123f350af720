package network

import "time"

// Limits bound what one guest may have open and begin. What they refuse is told. Zero fields are defaults.
type Limits struct {
	TCP       int           // connections at a time, those being made among them; 320
	UDP       int           // flows at a time: pairs of a port of the guest's and a destination; 256
	DNS       int           // queries at a time; 64
	FlowRate  int           // new connections and UDP flows a second, beyond FlowBurst at once; 200
	FlowBurst int           // 250
	DNSRate   int           // queries a second, beyond DNSBurst at once; 100
	DNSBurst  int           // 500
	IdleTCP   time.Duration // from the last byte to the end of a connection; 2 h
	IdleUDP   time.Duration // from the last datagram to the end of a flow; 1 m
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		unset int
	}{{&l.TCP, 320}, {&l.UDP, 256}, {&l.DNS, 64}, {&l.FlowRate, 200}, {&l.FlowBurst, 250}, {&l.DNSRate, 100}, {&l.DNSBurst, 500}} {
		if *f.field == 0 {
			*f.field = f.unset
		}
	}
	if l.IdleTCP == 0 {
		l.IdleTCP = 2 * time.Hour
	}
	if l.IdleUDP == 0 {
		l.IdleUDP = time.Minute
	}
	return l
}

// A limitKind is told of beside the others: no flood of one hides another.
type limitKind int

const (
	connectionLimit limitKind = iota
	datagramLimit
	rateLimit
	nameLimit
	nameRateLimit
	hostLimit // the host has no descriptors, its resolvers do not answer
	limitKinds
)

// A bucket lets most events through at once, and rate more a second.
type bucket struct {
	rate, most int
	spent      float64
	last       time.Time // when spent was last put right
}

func (b *bucket) allow(now time.Time) bool {
	if passed := now.Sub(b.last); passed > 0 {
		b.spent = max(0, b.spent-passed.Seconds()*float64(b.rate))
		b.last = now
	}
	if b.spent+1 > float64(b.most) {
		return false
	}
	b.spent++
	return true
}

// A limiter lets so many events through at once, and one more each time every has passed.
type limiter struct {
	burst  int
	every  time.Duration
	spent  int
	last   time.Time // when spent was last put right
	unsaid uint64
}

// How often it is told what the policy refuses, and that a limit was reached. All of it together stays below what the instance's log
// takes, so that no flood of one kind hides another.
var (
	policyTold = limiter{burst: 10, every: 10 * time.Second}
	limitTold  = limiter{burst: 2, every: time.Minute}
)

// allow reports whether an event at now may pass, and how many before it did not.
func (l *limiter) allow(now time.Time) (unsaid uint64, ok bool) {
	if n := now.Sub(l.last) / l.every; n > 0 {
		l.spent = int(max(0, time.Duration(l.spent)-n))
		l.last = now
	}
	if l.spent >= l.burst {
		l.unsaid++
		return 0, false
	}
	l.spent++
	unsaid, l.unsaid = l.unsaid, 0
	return unsaid, true
}
