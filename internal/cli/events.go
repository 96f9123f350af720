package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func (a *app) eventsCommand() *cobra.Command {
	var (
		types  []string
		after  string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use: "events [NAME...]", Short: "Print what happens, as it happens", GroupID: groupInstances, Args: cobra.ArbitraryArgs,
		Long: `Print what happens to the instances, or to those that are named, until Ctrl-C. When the daemon restarts, the stream goes on where it was; a line
of type resync says that something is missing.`,
		Example: "  hale events -f\n  hale events --type health web\n  hale events --json | jq .type",
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.followEvents(cmd.Context(), after, func(e api.Event) error {
				if !wanted(e, types, names) {
					return nil
				}
				if asJSON {
					return writeJSON(a.Stdout, e, "")
				}
				_, err := fmt.Fprintln(a.Stdout, eventLine(e))
				return err
			})
		},
	}
	cmd.Flags().BoolP("follow", "f", true, "events are always followed")
	cmd.Flags().MarkHidden("follow")
	cmd.Flags().StringSliceVar(&types, "type", nil, "only these types: created, state, boot_retry, updated, health, deleted, host")
	cmd.Flags().StringVar(&after, "after", "", "begin after the event with this `id`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one event to a line")
	return cmd
}

// reconnectPause is the time between two attempts to reach a daemon that went away.
const reconnectPause = time.Second

// followEvents calls do with each event. A daemon that went away once it had answered is waited for; it may come back at another
// address, and the old token may have ended meanwhile.
func (a *app) followEvents(ctx context.Context, after string, do func(api.Event) error) error {
	away := false
	for {
		before := after
		err := a.readEvents(ctx, &after, do)
		if after != before {
			away = false
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (after == "" || codeOf(err) != exitUnreachable):
			return err
		case !away:
			away = true
			fmt.Fprintln(a.Stderr, "hale: the daemon went away; waiting for it")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reconnectPause):
		}
	}
}

// readEvents reads one stream to its end, and leaves in after where it was.
func (a *app) readEvents(ctx context.Context, after *string, do func(api.Event) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	for e, err := range c.EventsFrom(ctx, after) {
		if err != nil {
			return err
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

func wanted(e api.Event, types, names []string) bool {
	if e.Type == hale.EventResync {
		return true
	}
	if len(types) > 0 && !slices.Contains(types, e.Type) {
		return false
	}
	return len(names) == 0 || slices.ContainsFunc(names, func(name string) bool {
		return name == e.Name || name != "" && strings.HasPrefix(e.Instance, name)
	})
}

func eventLine(e api.Event) string {
	who := cmp.Or(e.Name, e.Instance, "-")
	return oneLine(fmt.Sprintf("%s %s %s %s", e.Time.Local().Format("15:04:05.000"), who, e.Type, eventText(e)))
}

// eventText says the data of an event: what changed into what and why, or the data as it is.
func eventText(e api.Event) string {
	if e.Type == hale.EventResync {
		return "something was missed: list again"
	}
	var change struct {
		From, To, Reason string
		ExitCode         *int `json:"exit_code"`
		Image            string
	}
	if len(e.Data) == 0 || json.Unmarshal(e.Data, &change) != nil {
		return ""
	}
	switch {
	case change.To != "":
		s := change.From + " → " + change.To
		if change.ExitCode != nil {
			s += fmt.Sprintf(" (exit %d)", *change.ExitCode)
		}
		if change.Reason != "" {
			s += ": " + change.Reason
		}
		return s
	case change.Image != "":
		return change.Image
	}
	return string(e.Data)
}
