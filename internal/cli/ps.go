package cli

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func (a *app) psCommand() *cobra.Command {
	var (
		state, health string
		tags, filters []string
		asJSON, quiet bool
	)
	cmd := &cobra.Command{
		Use:     "ps [flags]",
		Aliases: []string{"ls", "list"},
		Short:   "List the instances, with their health",
		GroupID: groupInstances,
		Example: `  hale ps --health unhealthy
  hale ps --state Running --tag team=web -q`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, f := range filters {
				key, value, ok := strings.Cut(f, "=")
				switch {
				case ok && key == "state":
					state = value
				case ok && key == "health":
					health = value
				case ok && (key == "tag" || key == "label"):
					tags = append(tags, value)
				default:
					return usagef("--filter %q: state=…, health=… or tag=KEY=VALUE", f)
				}
			}
			var want hale.InstanceFilter
			var err error
			if want.State, err = oneOf("--state", state, states); err != nil {
				return err
			}
			if want.Health, err = oneOf("--health", health, healths); err != nil {
				return err
			}
			if want.Tags, err = keyValues("--tag", tags); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := c.Instances(cmd.Context(), want)
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return a.printJSON(list)
			case quiet:
				for _, inst := range list {
					fmt.Fprintln(a.Stdout, inst.ID)
				}
				return nil
			}
			t := instanceTable(list, time.Now())
			t.fit(a.paper().width, 3, 4, 1) // health, ports, image: `hale health` and `hale inspect` have them whole
			return t.write(a.Stdout, a.coloured())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&state, "state", "", "only those in this `state`")
	flags.StringVar(&health, "health", "", "only those with this health `status`: healthy, unhealthy, starting, unknown, disabled")
	flags.StringArrayVar(&tags, "tag", nil, "only those with this tag, `KEY=VALUE`; several must all match")
	flags.StringArrayVarP(&filters, "filter", "f", nil, "the same, as state=…, health=… or tag=KEY=VALUE")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print the ids only")
	flags.BoolP("all", "a", true, "those that are stopped are always listed")
	flags.MarkHidden("all")
	return cmd
}

func instanceTable(list []api.Instance, now time.Time) table {
	t := table{header: []string{"NAME", "IMAGE", "STATE", "HEALTH", "PORTS", "AGE"}}
	for _, inst := range list {
		t.add(plain(inst.Name), plain(shortImage(inst.Image)), stateCell(inst), healthCell(inst.HealthStatus, now),
			plain(portList(portsOf(inst))), plain(short(now.Sub(inst.CreatedAt))))
	}
	return t
}

// shortImage leaves out what every image of the default registry has.
func shortImage(ref string) string {
	ref = strings.TrimPrefix(ref, "docker.io/")
	ref = strings.TrimPrefix(ref, "library/")
	return strings.TrimSuffix(ref, ":latest")
}

// stateCell is "Stopped (3)", "Stopped (guest panic)" of one that did not end as it was asked to, or by itself and well.
func stateCell(inst api.Instance) cell {
	c := plain(string(inst.State))
	switch {
	case inst.State != api.InstanceStateStopped:
	case inst.ExitCode != nil && *inst.ExitCode != 0:
		c = cell{fmt.Sprintf("%s (%d)", inst.State, *inst.ExitCode), red}
	case inst.ExitCode == nil && !slices.Contains([]string{"", "stopped", "killed", programExited}, inst.ExitReason):
		c = cell{fmt.Sprintf("%s (%s)", inst.State, strings.ReplaceAll(inst.ExitReason, "_", " ")), red}
	}
	return c
}

// healthCell is "healthy 2m", "unhealthy 14s: connection refused"; "-" where nothing is checked.
func healthCell(h *api.InstanceHealthStatus, now time.Time) cell {
	if h == nil || h.Status == api.HealthStateDisabled {
		return plain("-")
	}
	c := plain(string(h.Status))
	if h.Since != nil {
		c.text += " " + short(now.Sub(*h.Since))
	}
	c.colour = statusColour(h.Status)
	if reason := or(h.LastError, ""); h.Status == api.HealthStateUnhealthy && reason != "" {
		c.text += ": " + cut(oneLine(reason), 60)
	}
	if h.Stale {
		c.text += " (stale)"
		c.colour = yellow
	}
	return c
}

// portsOf is the ports that are open on the host now. One that asked for a free port has none while its instance is stopped.
func portsOf(inst api.Instance) (open []api.PortMapping) {
	if inst.Network == nil || inst.State == api.InstanceStateStopped {
		return nil
	}
	for _, p := range inst.Network.Ports {
		if p.HostPort != 0 {
			open = append(open, p)
		}
	}
	return open
}

func hostAddr(p api.PortMapping) string {
	return net.JoinHostPort(cmp.Or(p.HostAddr, "127.0.0.1"), strconv.Itoa(p.HostPort))
}

func portList(ports []api.PortMapping) string {
	var s []string
	for _, p := range ports {
		s = append(s, fmt.Sprintf("%s→%d", hostAddr(p), p.GuestPort))
	}
	return strings.Join(s, ", ")
}
