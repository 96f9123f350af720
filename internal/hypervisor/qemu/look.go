package qemu

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// maxLook bounds what is kept of one of the monitor's answers.
const maxLook = 16 << 10

// looks are what the monitor is asked about a machine that hangs. The registers twice: what changes between the two says whether a
// processor goes round in a loop, and how large.
var looks = []string{"info status", "info registers -a", "info lapic", "info pic", "info registers -a"}

// Look asks QEMU what the machine is doing.
func (vm *VM) Look(ctx context.Context) (line, all string) {
	var log strings.Builder
	var said []string
	for _, l := range looks {
		var answer string
		if err := vm.qmp.execute(ctx, "human-monitor-command", map[string]string{"command-line": l}, &answer); err != nil {
			fmt.Fprintf(&log, "%s: %v\n", l, err)
			said = append(said, fmt.Sprintf("qemu does not say: %v", err))
			break // it would not answer the next either
		}
		answer = withoutVectors(answer)
		fmt.Fprintf(&log, "%s:\n%s\n", l, answer[:min(len(answer), maxLook)])
		switch {
		case l == "info status":
			said = append(said, strings.ToLower(strings.TrimSpace(answer)))
		case strings.HasPrefix(l, "info registers"):
			said = append(said, processors(answer))
		}
	}
	return strings.Join(said, "; "), log.String()
}

var (
	register = regexp.MustCompile(`(?m)^(?:CPU#(\d+)|RIP=([0-9a-f]+) RFL=([0-9a-f]+).* HLT=([01]))`)
	vectors  = regexp.MustCompile(`(?m)^(FPR|XMM|YMM|ZMM|Opmask|FCW|DR[0-9]).*\r?\n?`)
)

// withoutVectors leaves out the registers that say nothing of where a processor is.
func withoutVectors(s string) string { return vectors.ReplaceAllString(s, "") }

// processors says in a few words where each processor is.
func processors(registers string) string {
	var said []string
	number := "0"
	for _, m := range register.FindAllStringSubmatch(registers, -1) {
		if m[1] != "" {
			number = m[1]
			continue
		}
		words := fmt.Sprintf("processor %s at %s", number, m[2])
		if m[4] == "1" {
			words += ", halted"
		}
		if flags := m[3]; len(flags) > 2 && !interruptsTaken(flags) {
			words += ", takes no interrupts"
		}
		said = append(said, words)
	}
	if said == nil {
		return "qemu shows no processor"
	}
	return strings.Join(said, ", ")
}

// interruptsTaken looks at the flag IF of RFLAGS, in hexadecimal.
func interruptsTaken(flags string) bool {
	c := flags[len(flags)-3]
	return strings.IndexByte("2367abef", c) >= 0
}
