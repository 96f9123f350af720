package qemu

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pipedQMP is a connection whose other end is the test's.
func pipedQMP(t *testing.T) (*qmp, net.Conn) {
	ours, theirs := net.Pipe()
	q := newQMP(ours, func(string, json.RawMessage, time.Time) {})
	t.Cleanup(q.close)
	return q, theirs
}

// What QEMU 7.2 shows of two processors.
const shownRegisters = `
CPU#0
RAX=ffffffff81a178a0 RBX=0000000000000000 RCX=7fffffdb254ccbff RDX=4000000000000000
RIP=ffffffff81a17a0b RFL=00000212 [----A--] CPL=0 II=0 A20=1 SMM=0 HLT=1
CR0=80050033 CR2=00000000005db170 CR3=00000000053e4000 CR4=001506b0
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001fa0
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
YMM00=0000000000000000 0000000000000000 eaf73325eaf73325 eaf73325eaf73325

CPU#1
RAX=ffffffff81a178a0 RBX=0000000000000000 RCX=7fffffdb254ccbff RDX=4000000000000000
RIP=ffffffff81001234 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
`

func TestProcessors(t *testing.T) {
	want := "processor 0 at ffffffff81a17a0b, halted, processor 1 at ffffffff81001234, takes no interrupts"
	if got := processors(shownRegisters); got != want {
		t.Errorf("%q", got)
	}
	if got := processors("whatever another version says"); got != "qemu shows no processor" {
		t.Errorf("%q", got)
	}
	if s := withoutVectors(shownRegisters); strings.Contains(s, "YMM") || strings.Contains(s, "FPR") || !strings.Contains(s, "CR3=00000000053e4000") {
		t.Error(s)
	}
}

func TestLook(t *testing.T) {
	q, ours := pipedQMP(t)
	go func() {
		for lines := json.NewDecoder(ours); ; {
			var m struct {
				ID        uint64
				Arguments struct {
					Line string `json:"command-line"`
				}
			}
			if lines.Decode(&m) != nil {
				return
			}
			answer := map[string]string{"info status": "VM status: running\r\n", "info registers -a": shownRegisters}[m.Arguments.Line]
			json.NewEncoder(ours).Encode(map[string]any{"return": answer, "id": m.ID})
		}
	}()
	line, all := (&VM{qmp: q}).Look(t.Context())
	if !strings.HasPrefix(line, "vm status: running; processor 0 at ffffffff81a17a0b, halted, processor 1") {
		t.Errorf("%q", line)
	}
	if !strings.Contains(all, "info lapic:\n") || strings.Contains(all, "YMM") {
		t.Errorf("%q", all)
	}
}

// A QEMU that stands still is a find too.
func TestLookAtOneThatDoesNotAnswer(t *testing.T) {
	q, other := pipedQMP(t)
	go io.Copy(io.Discard, other)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	line, _ := (&VM{qmp: q}).Look(ctx)
	if !strings.HasPrefix(line, "qemu does not say: ") {
		t.Errorf("%q", line)
	}
}
