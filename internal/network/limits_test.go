package network

import "testing"

// What is open at a time never takes the descriptors that are kept for other things, where there are any besides.
func TestLimitsForFewDescriptors(t *testing.T) {
	const keep = 256
	for _, n := range []uint64{300, 400, 1024, 4096, 4991, 4992, 1 << 20, 1<<64 - 1} {
		l := LimitsFor(n, keep).withDefaults()
		if sum := l.Published + l.TCP + l.UDP + l.DNS; uint64(sum) > n-keep || l.Published < 1 || l.TCP < 1 || l.UDP < 1 || l.DNS < 1 {
			t.Errorf("of %d: %+v", n, l)
		}
		if few := n < 4096+320+256+64+keep; few == (LimitsFor(n, keep) == Limits{}) {
			t.Errorf("of %d: %+v", n, LimitsFor(n, keep))
		}
	}
	if l := LimitsFor(10, keep); l.Published != 1 || l.DNS != 1 {
		t.Errorf("of none: %+v", l)
	}
}
