package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// spew writes as much as it can for some seconds: spew output|console|frames SECONDS.
func spew(args []string) error {
	lasts, err := time.ParseDuration(args[1] + "s")
	if err != nil {
		return err
	}
	end := time.Now().Add(lasts)
	var to *os.File
	switch args[0] {
	case "output":
		to = os.Stdout
	case "console":
		to, err = os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0)
	case "frames":
		to, err = takeAgentsPort()
	}
	if err != nil {
		return err
	}
	junk := make([]byte, 64<<10)
	rand.Read(junk)
	for i := 63; i < len(junk); i += 64 { // lines, for what takes them apart
		junk[i] = '\n'
	}
	var sent int64
	for time.Now().Before(end) {
		to.SetWriteDeadline(end) // not every file has one
		n, err := to.Write(junk)
		sent += int64(n)
		if err != nil {
			break
		}
	}
	// By a file, for output may be what was flooded.
	return os.WriteFile("/flooded", fmt.Appendf(nil, "%d", sent), 0o600)
}

// takeAgentsPort opens the agent's control port in its place: only one can have it open, and the agent loses it with its driver.
// Both look for it when it is there again. Where the agent was the faster one it loses the port once more.
func takeAgentsPort() (*os.File, error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if err := bindAgent("unbind"); err != nil {
			return nil, err
		}
		if err := bindAgent("bind"); err != nil {
			return nil, err
		}
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			if f, err := openAgentsPort(); f != nil || err != nil {
				return f, err
			}
		}
	}
	return nil, fmt.Errorf("the agent's port could not be taken")
}

// openAgentsPort returns nil where the port is not there yet, or another has it.
func openAgentsPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if b, err := os.ReadFile(n); err != nil || strings.TrimSpace(string(b)) != "hale.control" {
			continue
		}
		if f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0); err == nil {
			return f, nil
		}
	}
	return nil, nil
}
