package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
)

func (a *app) healthCommand() *cobra.Command {
	var asJSON, now, watch bool
	cmd := &cobra.Command{
		Use: "health NAME", Short: "Show an instance's health: status, check, last results, transitions", GroupID: groupInstances, Args: cobra.ExactArgs(1),
		Long: `Show an instance's health: its status, the check and whose it is, the last results as a strip, how long they took, and the last
changes with their reasons.

With -w it goes on until Ctrl-C, or until the instance is deleted (and then ends with 3): on a terminal the picture is drawn anew,
elsewhere each result and each change is a line.`,
		Example: "  hale health web\n  hale health -w web\n  hale health web --now && echo well",
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch && (now || asJSON) {
				return usagef("-w goes with neither --now nor --json")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if watch {
				inst, err := c.Instance(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.watchHealth(cmd.Context(), inst)
			}
			if now {
				r, err := c.CheckInstanceHealth(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.showCheck(r, asJSON)
			}
			h, err := c.InstanceHealth(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(h)
			}
			return a.showHealth(h, time.Now())
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "check now, and print the result; ends with 1 if it is no success")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and show what changes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) showCheck(r api.HealthResult, asJSON bool) error {
	if asJSON {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.Stdout, resultLine(r))
		if r.Output != "" {
			fmt.Fprintln(a.Stdout, indent(r.Output))
		}
	}
	if r.Outcome != outcomeSuccess {
		return exitStatus{code: exitError}
	}
	return nil
}

// The outcomes of a check.
const (
	outcomeSuccess = "success"
	outcomeFailure = "failure"
)

func resultLine(r api.HealthResult) string {
	s := fmt.Sprintf("%s in %s", r.Outcome, milliseconds(r.DurationMs))
	if r.Reason != "" {
		s += ": " + oneLine(r.Reason)
	}
	return s
}

func milliseconds(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(100 * time.Microsecond).String()
}

func statusColour(s api.HealthState) colour {
	switch s {
	case api.HealthStateHealthy:
		return green
	case api.HealthStateStarting:
		return yellow
	case api.HealthStateUnhealthy:
		return red
	}
	return ""
}

func statusCell(h api.InstanceHealth, now time.Time) cell {
	c := cell{string(h.Status), statusColour(h.Status)}
	if h.Since != nil {
		c.text += " for " + short(now.Sub(*h.Since))
	}
	if h.Status == api.HealthStateUnknown && h.LastStatus != "" {
		c.text += ", was " + string(h.LastStatus)
	}
	if h.Stale {
		c.text += " (stale: " + strings.ReplaceAll(h.StaleReason, "_", " ") + ")"
	}
	return c
}

func streak(h api.InstanceHealth) string {
	switch {
	case h.ConsecutiveFailures > 0:
		return count(h.ConsecutiveFailures, "failure")
	case h.ConsecutiveSuccesses > 0:
		return count(h.ConsecutiveSuccesses, "success")
	case h.GraceFailures > 0:
		return count(h.GraceFailures, "failure") + " in the grace, not counted"
	}
	return ""
}

// checkText says a policy in a line: "GET :80/healthz every 10s, timeout 2s, 3 failures".
func checkText(raw json.RawMessage, source string) string {
	var hc api.HealthCheck
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) || json.Unmarshal(raw, &hc) != nil {
		return "none"
	}
	var s string
	switch {
	case hc.HTTP != nil:
		scheme := ""
		if or(hc.HTTP.Scheme, "") == api.HealthCheckHTTPSchemeHTTPS {
			scheme = "https://"
		}
		s = fmt.Sprintf("%s %s:%d%s", or(hc.HTTP.Method, api.HealthCheckHTTPMethodGET), scheme, hc.HTTP.Port, or(hc.HTTP.Path, "/"))
	case hc.TCP != nil:
		s = fmt.Sprintf("connect to :%d", hc.TCP.Port)
	case hc.GRPC != nil:
		s = fmt.Sprintf("grpc :%d", hc.GRPC.Port)
		if service := or(hc.GRPC.Service, ""); service != "" {
			s += " " + cut(service, 60)
		}
	case hc.Exec != nil:
		s = "run " + cut(oneLine(strings.Join(hc.Exec.Command, " ")), 120)
	default:
		return "none"
	}
	for _, part := range []struct {
		word  string
		value *string
	}{{"every", hc.Interval}, {"timeout", hc.Timeout}, {"grace", hc.StartPeriod}} {
		if part.value != nil {
			s += fmt.Sprintf(", %s %s", part.word, *part.value)
		}
	}
	if n := or(hc.FailureThreshold, 0); n > 0 {
		s += fmt.Sprintf(", unhealthy after %d", n)
	}
	switch api.HealthCheckSource(source) {
	case api.HealthCheckSourceImage:
		s += " (the image's)"
	case api.HealthCheckSourceRequest:
		s += " (asked for)"
	}
	return s
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(clean(s), "\n"), "\n", "\n    ")
}

// count is a number of things in words.
func count(n int, thing string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(thing, "s"):
		thing += "es"
	default:
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
