package agent

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The real-time signals as the C libraries number them for programs.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// parseSignal reads a signal as images and people write it: "SIGQUIT", "quit", "3", "SIGRTMIN+3".
func parseSignal(text string) (syscall.Signal, error) {
	name := strings.ToUpper(text)
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= sigRTMax {
		return syscall.Signal(n), nil
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if s := unix.SignalNum(name); s != 0 {
		return s, nil
	}
	for prefix, base := range map[string]int{"SIGRTMIN": sigRTMin, "SIGRTMAX": sigRTMax} {
		offset, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(offset)
		if offset == "" {
			n, err = 0, nil
		}
		if n += base; err == nil && n >= sigRTMin && n <= sigRTMax {
			return syscall.Signal(n), nil
		}
	}
	return 0, fmt.Errorf("no signal %.32q", text)
}

// signalName is the name of a signal, or its number.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	if s >= sigRTMin && s <= sigRTMax {
		return fmt.Sprintf("SIGRTMIN+%d", int(s)-sigRTMin)
	}
	return strconv.Itoa(int(s))
}
