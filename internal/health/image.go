package health

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What Docker uses where a HEALTHCHECK says nothing (moby, daemon/health.go).
const (
	dockerInterval      = 30 * time.Second
	dockerTimeout       = 30 * time.Second
	dockerStartInterval = 5 * time.Second
	dockerRetries       = 3
)

// MaxImageCheck bounds what is read, and kept with an instance, of an image's HEALTHCHECK and Shell, in bytes.
const MaxImageCheck = 64 << 10

// An imageCheck is what an image's HEALTHCHECK gives, within the bounds of a policy. Zero is not given, as it is for Docker.
type imageCheck struct {
	command                                       []string // nil: nothing is to be checked
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
}

// FromImage makes a policy of an image's HEALTHCHECK as its configuration has it (nil: it has none), and of the image's Shell. No policy
// is what comes of none, of NONE and of an empty test. What fits no policy is clamped, or left out where it cannot be; the warnings say so
// in words for a person. It never fails: a check that an image cannot say properly is no reason not to run it.
func FromImage(check json.RawMessage, shell []string) (Policy, []string) {
	c, warnings := readImageCheck(check, shell)
	if c.command == nil {
		return Policy{}, warnings
	}
	p := Policy{
		Type:             TypeExec,
		Interval:         cmp.Or(c.interval, dockerInterval),
		Timeout:          cmp.Or(c.timeout, dockerTimeout),
		FailureThreshold: cmp.Or(c.retries, dockerRetries),
		SuccessThreshold: 1,
		Exec:             &ExecCheck{Command: c.command},
	}
	// Docker waits an interval before its first check that counts.
	p.StartPeriod = max(c.startPeriod, p.Interval)
	p.StartInterval, warnings = c.startWithin(p.Interval, dockerStartInterval, warnings)
	return p, warnings
}

// startWithin is the pace inside the grace, which is not slower than the steady one.
func (c imageCheck) startWithin(interval, unset time.Duration, warnings []string) (time.Duration, []string) {
	if c.startInterval > interval {
		warnings = append(warnings, outOf("StartInterval", c.startInterval, interval))
	}
	return min(cmp.Or(c.startInterval, unset), interval), warnings
}

// ImageCheckFits reports whether an image's HEALTHCHECK and Shell are within MaxImageCheck; one that is not is left out by FromImage.
func ImageCheckFits(check json.RawMessage, shell []string) bool {
	size := len(check)
	for _, s := range shell {
		size += len(s) + 3 // as JSON has it
	}
	return size <= MaxImageCheck
}

func readImageCheck(raw json.RawMessage, shell []string) (c imageCheck, warnings []string) {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return c, nil
	}
	if !ImageCheckFits(raw, shell) {
		return c, []string{fmt.Sprintf("the image's HEALTHCHECK and SHELL have more than %d bytes; they are left out", MaxImageCheck)}
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return c, []string{"the image's HEALTHCHECK is no JSON object; it is left out"}
	}
	var test []string
	if v, ok := fields["Test"]; ok && json.Unmarshal(v, &test) != nil {
		warnings = append(warnings, "the image's HEALTHCHECK has a Test that is no array of strings; it is left out")
	}
	command, problem := testCommand(test, shell)
	if problem != "" {
		warnings = append(warnings, "the image's HEALTHCHECK "+problem+"; it is left out")
	}
	c.command = command
	duration := func(name string, lo, hi time.Duration) time.Duration {
		return time.Duration(clamped(fields, name, int64(lo), int64(hi), func(n int64) any { return time.Duration(n) }, &warnings))
	}
	const ms, day = time.Millisecond, 24 * time.Hour
	c.interval = duration("Interval", 100*ms, day)
	c.timeout = duration("Timeout", ms, time.Hour)
	c.startPeriod = duration("StartPeriod", 0, day)
	c.startInterval = duration("StartInterval", 50*ms, day)
	c.retries = int(clamped(fields, "Retries", 1, 1000, func(n int64) any { return n }, &warnings))
	return c, warnings
}

// testCommand is what a Test runs, nil for nothing, and what is wrong with it.
func testCommand(test, shell []string) (command []string, problem string) {
	if len(test) == 0 || test[0] == "NONE" {
		return nil, ""
	}
	switch test[0] {
	case "CMD":
		command = slices.Clone(test[1:])
	case "CMD-SHELL":
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		if len(test) > 1 {
			command = slices.Concat(shell, test[1:])
		}
	default:
		return nil, fmt.Sprintf("begins with %q, which is none of CMD, CMD-SHELL and NONE", printable(cutHead(test[0], 64)))
	}
	if len(command) == 0 || command[0] == "" {
		return nil, "names no program"
	}
	var faults []Fault
	raw, err := json.Marshal(map[string][]string{"command": command})
	if err != nil {
		return nil, "cannot be written down"
	}
	if r, ok := (reader{path: "exec", faults: &faults}).open(raw); ok {
		r.exec()
	}
	if len(faults) > 0 {
		return nil, "cannot be run: its " + strings.TrimPrefix(faults[0].Field, "exec.") + " " + faults[0].Message
	}
	return command, ""
}

// clamped reads a whole number; 0 is one that is absent. What is no number is absent too, with a warning.
func clamped(fields map[string]json.RawMessage, name string, lo, hi int64, show func(int64) any, warnings *[]string) int64 {
	var n int64
	raw, ok := fields[name]
	if !ok {
		return 0
	}
	if json.Unmarshal(raw, &n) != nil {
		*warnings = append(*warnings, "the image's HEALTHCHECK has a "+name+" that is no whole number in range; it is left out")
		return 0
	}
	in := min(max(n, lo), hi)
	if n == 0 || n == in {
		return n
	}
	*warnings = append(*warnings, outOf(name, show(n), show(in)))
	return in
}

func outOf(name string, given, used any) string {
	return fmt.Sprintf("the image's HEALTHCHECK has a %s of %v, which is out of range; %v is used", name, given, used)
}
