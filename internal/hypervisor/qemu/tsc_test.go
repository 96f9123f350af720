package qemu

import (
	"math"
	"runtime"
	"testing"
	"time"
)

func TestTSC(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("no such counter")
	}
	first, ok := readCounter()
	if !ok {
		t.Skip("this host never lets two looks at the clock be close together")
	}
	soon := first.kHz()
	if apart := time.Since(first.at); apart < leastApart {
		t.Errorf("measured over %v", apart)
	}
	time.Sleep(50 * time.Millisecond)
	later := first.kHz()
	if soon < 100_000 || math.Abs(float64(soon)/float64(later)-1) > 0.005 {
		t.Errorf("%d kHz, and %d kHz over a longer time", soon, later)
	}
	if (reading{}).tscCmdline() != "" {
		t.Error("what is not known is told")
	}
}
