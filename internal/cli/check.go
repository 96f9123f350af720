package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// checkFlags are the flags that say how an instance's health is checked. The daemon judges the values; here is
// only what a person writes differently from the API.
type checkFlags struct {
	http, tcp, grpc, cmd, exec string
	off                        bool
	interval, timeout          time.Duration
	startPeriod, startInterval time.Duration
	retries, successes         int
	flags                      *pflag.FlagSet
}

func (f *checkFlags) register(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringVar(&f.http, "health-http", "", "check with GET: `:PORT/path` or http(s)://:PORT/path")
	flags.StringVar(&f.tcp, "health-tcp", "", "check that a port opens: `:PORT`")
	flags.StringVar(&f.grpc, "health-grpc", "", "check with grpc.health.v1: `:PORT[/SERVICE]`")
	flags.StringVar(&f.cmd, "health-cmd", "", "check with a `shell command` in the guest that ends with 0, at the pace of the image's check")
	flags.StringVar(&f.exec, "health-exec", "", "check with a program and its arguments, without a shell: words or a `JSON array`")
	flags.BoolVar(&f.off, "no-healthcheck", false, "no check, not even the image's own")
	flags.DurationVar(&f.interval, "health-interval", 0, "from the end of one check to the start of the next (10s)")
	flags.DurationVar(&f.timeout, "health-timeout", 0, "longest time that one check may take (2s)")
	flags.IntVar(&f.retries, "health-retries", 0, "failures in a row that make it unhealthy (3)")
	flags.IntVar(&f.successes, "health-success-threshold", 0, "successes in a row that make it healthy (1)")
	flags.DurationVar(&f.startPeriod, "health-start-period", 0, "grace at the start, when failures do not count (30s)")
	flags.DurationVar(&f.startInterval, "health-start-interval", 0, "pace of the checks in the grace (fast at first, then slower)")
}

// kindFlags say what is checked, and detailFlags how; either may be there without the other.
var (
	kindFlags   = []string{"http", "tcp", "grpc", "cmd", "exec"}
	detailFlags = []string{"interval", "timeout", "retries", "success-threshold", "start-period", "start-interval"}
)

// given reports whether a flag was on the command line.
func (f *checkFlags) given(name string) bool { return f.flags.Changed("health-" + name) }

// names are those of a list that were on the command line.
func (f *checkFlags) names(list []string) (given []string) {
	for _, name := range list {
		if f.given(name) {
			given = append(given, "--health-"+name)
		}
	}
	return given
}

// check is what the flags ask for: a health_check of one's own, or single fields to change of the image's. Both are nil if they ask for nothing.
// As with docker, a command or a number alone changes the image's check; a port or a program without a shell is another check.
func (f *checkFlags) check() (whole, override json.RawMessage, err error) {
	kinds, details := f.names(kindFlags), f.names(detailFlags)
	switch {
	case f.off && len(kinds)+len(details) > 0:
		return nil, nil, usagef("%s does not go with --no-healthcheck", append(kinds, details...)[0])
	case f.off:
		whole, err = json.Marshal(api.HealthCheck{Type: ptr(api.HealthCheckTypeNone)})
		return whole, nil, err
	case len(kinds) > 1:
		return nil, nil, usagef("%s: one check at a time", strings.Join(kinds, " and "))
	case len(kinds)+len(details) == 0:
		return nil, nil, nil
	}
	hc := new(api.HealthCheck)
	f.details(hc)
	if len(kinds) == 0 || f.given("cmd") {
		o := api.HealthCheckOverride{
			Interval: hc.Interval, Timeout: hc.Timeout, StartPeriod: hc.StartPeriod, StartInterval: hc.StartInterval,
			FailureThreshold: hc.FailureThreshold, SuccessThreshold: hc.SuccessThreshold,
		}
		if f.given("cmd") {
			if strings.TrimSpace(f.cmd) == "" {
				return nil, nil, usagef("--health-cmd is empty")
			}
			o.Cmd = &f.cmd
		}
		override, err = json.Marshal(o)
		return nil, override, err
	}
	if err := f.block(hc); err != nil {
		return nil, nil, err
	}
	whole, err = json.Marshal(hc)
	return whole, nil, err
}

// onto is a check in force with the numbers of the flags in it, nil if there is none that somebody asked for: then they change the image's.
func (f *checkFlags) onto(inst api.Instance) (json.RawMessage, error) {
	var policy, changes map[string]json.RawMessage
	if inst.HealthCheckSource != api.HealthCheckSourceRequest || noCheck(inst) {
		return nil, nil
	}
	if err := json.Unmarshal(inst.HealthCheck, &policy); err != nil {
		return nil, fmt.Errorf("the daemon's answer: %w", err)
	}
	hc := new(api.HealthCheck)
	f.details(hc)
	b, err := json.Marshal(hc)
	if err == nil {
		err = json.Unmarshal(b, &changes)
	}
	if err != nil {
		return nil, err
	}
	maps.Copy(policy, changes)
	return json.Marshal(policy)
}

// otherFlags are the flags behind fields that are not of a check, where the two have different names.
var otherFlags = map[string]string{
	"vcpus": "--cpus", "size": "--memory", "overlay_size": "--overlay", "network.ports": "--publish", "network.allow": "--allow-net",
	"name": "--name", "ttl": "--ttl", "platform": "--platform",
}

// flagOf is the flag behind a field, and what of it where that is a part; "" if there is none.
func flagOf(field string) (flag, part string) {
	if !strings.HasPrefix(field, "health_check") {
		field, _, _ = strings.Cut(field, "[") // one of a list
		return otherFlags[field], ""
	}
	_, name, _ := strings.Cut(field, ".")
	name, part, _ = strings.Cut(name, ".")
	switch name {
	case "failure_threshold":
		name = "retries"
	case "interval", "timeout", "start_period", "start_interval", "success_threshold", "cmd", "http", "tcp", "grpc", "exec":
		name = strings.ReplaceAll(name, "_", "-")
	default:
		return "", ""
	}
	return "--health-" + name, part
}

// explain makes a refusal speak of the flags, and not of the fields that they became.
func (f *checkFlags) explain(err error) error {
	refused, ok := errors.AsType[*hale.Error](err)
	if !ok {
		return err
	}
	e, changed := *refused, false
	e.Details = slices.Clone(e.Details)
	for i, d := range e.Details {
		flag, part := flagOf(d.Field)
		message := strings.TrimSpace(part + " " + d.Message)
		if d.Field == "health_check_override" {
			flag = strings.Join(append(f.names(kindFlags), f.names(detailFlags)...), ", ")
			message = "the image has no check of its own: say what to check too, with --health-http, --health-tcp, --health-grpc, --health-cmd or --health-exec"
		}
		if flag != "" {
			changed = true
			e.Message = strings.ReplaceAll(e.Message, d.Field+": "+d.Message, flag+": "+message)
			e.Details[i].Field, e.Details[i].Message = flag, message
		}
	}
	if !changed {
		return err
	}
	return &e
}

func (f *checkFlags) block(hc *api.HealthCheck) (err error) {
	switch {
	case f.given("http"):
		hc.HTTP, err = parseHTTPCheck(f.http)
	case f.given("tcp"):
		var port int
		port, err = parsePort("--health-tcp", strings.TrimPrefix(f.tcp, ":"))
		hc.TCP = &api.HealthCheckTCP{Port: port}
	case f.given("grpc"):
		text, service, named := strings.Cut(strings.TrimPrefix(f.grpc, ":"), "/")
		var port int
		port, err = parsePort("--health-grpc", text)
		hc.GRPC = &api.HealthCheckGRPC{Port: port}
		if named && service != "" {
			hc.GRPC.Service = &service
		}
	case f.given("exec"):
		var argv []string
		argv, err = parseArgv("--health-exec", f.exec)
		hc.Exec = &api.HealthCheckExec{Command: argv}
	}
	return err
}

func (f *checkFlags) details(hc *api.HealthCheck) {
	duration := func(name string, d time.Duration, to **string) {
		if f.given(name) {
			*to = ptr(d.String())
		}
	}
	duration("interval", f.interval, &hc.Interval)
	duration("timeout", f.timeout, &hc.Timeout)
	duration("start-interval", f.startInterval, &hc.StartInterval)
	duration("start-period", f.startPeriod, &hc.StartPeriod)
	if f.given("retries") {
		hc.FailureThreshold = &f.retries
	}
	if f.given("success-threshold") {
		hc.SuccessThreshold = &f.successes
	}
}

// parseHTTPCheck reads ":80/path", "80", "http://:80/path" and "https://:443/". There is no host to name: a check asks
// the instance itself.
func parseHTTPCheck(s string) (*api.HealthCheckHTTP, error) {
	whole := s
	if !strings.Contains(s, "://") {
		whole = "http://:" + strings.TrimPrefix(s, ":")
	}
	u, err := url.Parse(whole)
	if err != nil || u.User != nil || u.Fragment != "" {
		return nil, usagef("--health-http %q: write :PORT/path, or http(s)://:PORT/path", s)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--health-http %q: the scheme is http or https, not %s", s, u.Scheme)
	}
	if h := u.Hostname(); h != "" && h != "localhost" {
		return nil, usagef("--health-http %q: a check asks the instance itself; leave %q out", s, h)
	}
	text := u.Port()
	if text == "" && strings.Contains(s, "://") {
		text = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	port, err := parsePort("--health-http", text)
	if err != nil {
		return nil, err
	}
	c := &api.HealthCheckHTTP{Port: port}
	if path := u.RequestURI(); path != "/" {
		c.Path = &path
	}
	if u.Scheme == "https" {
		c.Scheme = ptr(api.HealthCheckHTTPSchemeHTTPS)
	}
	return c, nil
}

func parsePort(flag, s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 65535 {
		return 0, usagef("%s: %q is not a port (1 … 65535)", flag, s)
	}
	return n, nil
}

// parseArgv reads a program and its arguments: a JSON array, or words between spaces.
func parseArgv(flag, s string) (argv []string, err error) {
	if strings.HasPrefix(strings.TrimSpace(s), "[") {
		if err := json.Unmarshal([]byte(s), &argv); err != nil {
			return nil, usagef("%s: %q is not a JSON array of strings", flag, s)
		}
	} else {
		argv = strings.Fields(s)
	}
	if len(argv) == 0 {
		return nil, usagef("%s names no program", flag)
	}
	return argv, nil
}

func ptr[T any](v T) *T { return &v }

// or is what p points to, else v.
func or[T any](p *T, v T) T {
	if p == nil {
		return v
	}
	return *p
}
