package health

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"time"
)

const overrideRoot = "health_check_override"

// An Override changes single fields of an image's HEALTHCHECK, as docker run's flags do. Only ParseOverride makes one.
type Override struct {
	cmd                                       *string       // for the image's shell
	interval, timeout, startInterval, confirm time.Duration // 0: not given
	startPeriod                               time.Duration // -1: not given
	failureThreshold, successThreshold        int           // 0: not given
}

// ParseOverride reads and checks a health_check_override as it came over the wire. null, and an object that gives nothing, are nil. An error
// is a *PolicyError that names every fault.
func ParseOverride(raw json.RawMessage) (*Override, error) {
	if string(bytes.TrimSpace(raw)) == "null" {
		return nil, nil
	}
	var faults []Fault
	var o Override
	r, ok := reader{path: overrideRoot, faults: &faults}.open(raw)
	if ok {
		o = r.override()
		r.end()
	}
	switch {
	case len(faults) > 0:
		return nil, &PolicyError{Faults: faults}
	case o == Override{startPeriod: -1}:
		return nil, nil
	}
	return &o, nil
}

func (r reader) override() (o Override) {
	const ms, day = time.Millisecond, 24 * time.Hour
	if s := r.str("cmd"); s != "" {
		o.cmd = &s
	}
	o.interval = r.duration("interval", 0, 100*ms, day)
	o.timeout = r.duration("timeout", 0, ms, time.Hour)
	o.startPeriod = r.duration("start_period", -1, 0, day)
	o.startInterval = r.duration("start_interval", 0, 50*ms, day)
	o.confirm = r.duration("confirm_interval", 0, 50*ms, day)
	o.failureThreshold = r.threshold("failure_threshold", 0)
	o.successThreshold = r.threshold("success_threshold", 0)
	return o
}

// Apply makes a policy of what the override gives, then the image's HEALTHCHECK, and hale's own defaults where neither gives a field. The
// warnings are FromImage's. An error is a *PolicyError: nothing says what to check, or what is given does not fit the image's fields.
func (o *Override) Apply(check json.RawMessage, shell []string) (Policy, []string, error) {
	c, warnings := readImageCheck(check, shell)
	var faults []Fault
	fault := func(name, format string, args ...any) {
		field := overrideRoot
		if name != "" {
			field += "." + name
		}
		faults = append(faults, Fault{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if o.cmd != nil {
		command, problem := testCommand([]string{"CMD-SHELL", *o.cmd}, shell)
		if c.command = command; problem != "" {
			fault("cmd", "%s", problem)
		}
	}
	if c.command == nil && len(faults) == 0 {
		fault("", "the image has no check of its own to change: give cmd too, or a health_check instead")
	}
	p := Policy{
		Type:             TypeExec,
		Interval:         cmp.Or(o.interval, c.interval, defaultInterval),
		FailureThreshold: cmp.Or(o.failureThreshold, c.retries, 3),
		SuccessThreshold: cmp.Or(o.successThreshold, 1),
		ConfirmInterval:  o.confirm,
		Exec:             &ExecCheck{Command: c.command},
	}
	p.Timeout = cmp.Or(o.timeout, c.timeout, min(defaultTimeout, p.Interval))
	switch {
	case o.startPeriod >= 0:
		p.StartPeriod = o.startPeriod
	case c.startPeriod > 0:
		p.StartPeriod = max(c.startPeriod, p.Interval)
	default:
		p.StartPeriod = defaultStartPeriod
	}
	if p.StartInterval = o.startInterval; p.StartInterval == 0 {
		p.StartInterval, warnings = c.startWithin(p.Interval, 0, warnings)
	}
	if o.startInterval > p.Interval {
		fault("start_interval", "must be at most the interval in force, %s", short(p.Interval))
	}
	if o.confirm > p.Interval {
		fault("confirm_interval", "must be at most the interval in force, %s", short(p.Interval))
	}
	if len(faults) > 0 {
		return Policy{}, nil, &PolicyError{Faults: faults}
	}
	return p, warnings, nil
}
