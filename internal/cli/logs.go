package cli

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func (a *app) logsCommand() *cobra.Command {
	var (
		follow       bool
		tail, source string
	)
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Print what an instance wrote", GroupID: groupInstances, Args: cobra.ExactArgs(1),
		Long: `Print what an instance's program wrote, as it is. The other sources are vmm, the machine's console and what the hypervisor says, and hale, what
the daemon says of the instance. With -f a daemon that goes away is waited for, and what was written meanwhile is printed then.`,
		Example: "  hale logs -f web\n  hale logs --source vmm --tail all web",
		RunE: func(cmd *cobra.Command, args []string) error {
			l := hale.Logs{Follow: follow}
			var err error
			if l.Tail, err = parseTail(tail); err != nil {
				return err
			}
			if l.Source, err = parseSource(source); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if !follow {
				return a.printLogs(cmd.Context(), c, args[0], l)
			}
			inst, err := c.Instance(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.followLogs(cmd.Context(), inst, l)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with lines as they are written")
	cmd.Flags().StringVarP(&tail, "tail", "n", "100", "how many of the last lines to begin with, or all")
	cmd.Flags().StringVar(&source, "source", "app", "which log: app, vmm or hale")
	return cmd
}

// followLogs prints an instance's log until it is deleted. A daemon that goes away once it had answered is waited for.
func (a *app) followLogs(ctx context.Context, inst api.Instance, l hale.Logs) error {
	place, away := "", absence{}
	l.Place = &place
	for {
		before := place
		c, err := a.client() // each time: a daemon that comes back may be at another address
		if err == nil {
			err = a.printLogs(ctx, c, inst.ID, l)
		}
		if place != before {
			away = absence{}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil: // the daemon ends it, in order, with the instance
			return nil
		case before != "" && gone(err):
			return exitStatus{exitNotFound, fmt.Errorf("there is no %s any more", inst.Name)}
		case place == "" || codeOf(err) != exitUnreachable:
			return err
		}
		if err := away.wait(ctx, a.say, reconnectPause); err != nil {
			return err
		}
	}
}

// printLogs prints what one request brings.
func (a *app) printLogs(ctx context.Context, c *hale.Client, ref string, l hale.Logs) error {
	out := bufio.NewWriter(a.Stdout)
	defer out.Flush()
	for line, err := range c.InstanceLogs(ctx, ref, l) {
		if err != nil {
			return err
		}
		out.WriteString(line)
		out.WriteByte('\n')
		if l.Follow {
			err = out.Flush()
		}
		if err != nil {
			return err
		}
	}
	return out.Flush()
}

// allLines is more lines than any log holds.
const allLines = 1 << 30

func parseTail(s string) (*int, error) {
	if s == "all" {
		return ptr(allLines), nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > allLines {
		return nil, usagef("--tail %q: a number of lines, or all", s)
	}
	return &n, nil
}

func parseSource(s string) (api.LogSource, error) {
	if s == "hale" {
		return api.LogSourceHypeman, nil // the API keeps the name that its clients know
	}
	if l := api.LogSource(strings.ToLower(s)); l.Valid() {
		return l, nil
	}
	return "", usagef("--source %q: app, vmm or hale", s)
}
