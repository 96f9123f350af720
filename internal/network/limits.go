package network

import (
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what one guest may have open and begin, and what may be open to it. What they refuse the guest is told. Zero fields are defaults.
type Limits struct {
	Published int           // connections through published ports at a time; MaxConnections
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
	}{{&l.Published, MaxConnections}, {&l.TCP, 320}, {&l.UDP, 256}, {&l.DNS, 64}, {&l.FlowRate, 200}, {&l.FlowBurst, 250}, {&l.DNSRate, 100}, {&l.DNSBurst, 500}} {
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

// LimitsFor are the limits of a process that may have so many descriptors, of which keep are for other things: one is used by each
// connection, flow and query. Where there are enough they are the defaults.
func LimitsFor(descriptors uint64, keep int) Limits {
	all := Limits{}.withDefaults()
	left, want := int(min(descriptors, 1<<20))-keep, all.Published+all.TCP+all.UDP+all.DNS
	if left >= want {
		return Limits{}
	}
	share := func(n int) int { return max(1, n*left/want) }
	return Limits{Published: share(all.Published), TCP: share(all.TCP), UDP: share(all.UDP), DNS: share(all.DNS)}
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

// A teller bounds how often something of one kind is told, and counts what is not.
type teller struct {
	rate   *rate.Limiter
	unsaid uint64
}

// ToldBurst and ToldEvery bound what Config.Refused is told: so many at once, and one more in so long. Who takes less of it has a flood of one
// kind hide another, and their numbers wrong.
const (
	ToldBurst = 10 + 2*int(limitKinds)
	ToldEvery = 5 * time.Second
)

// How often it is told what the policy refuses, and that a limit was reached.
func policyTold() teller {
	return teller{rate: rate.NewLimiter(rate.Every(10*time.Second), 10)}
}

func limitTold() teller { return teller{rate: rate.NewLimiter(rate.Every(time.Minute), 2)} }

// allow reports whether an event at now may be told, and how many before it were not.
func (t *teller) allow(now time.Time) (unsaid uint64, ok bool) {
	if !t.rate.AllowN(now, 1) {
		t.unsaid++
		return 0, false
	}
	unsaid, t.unsaid = t.unsaid, 0
	return unsaid, true
}
