package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

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
			for _, t := range types {
				if _, err := oneOf("--type", t, eventTypes); err != nil {
					return err
				}
			}
			whose, err := a.namesOf(cmd.Context(), names)
			if err != nil {
				return err
			}
			p := a.paper()
			return a.followEvents(cmd.Context(), after, func(e api.Event) error {
				if !wanted(e, types, whose) {
					return nil
				}
				if asJSON {
					return writeJSON(a.Stdout, e, "")
				}
				_, err := fmt.Fprintln(a.Stdout, p.text(eventLine(e)))
				return err
			})
		},
	}
	cmd.Flags().BoolP("follow", "f", true, "events are always followed")
	cmd.Flags().MarkHidden("follow")
	cmd.Flags().StringSliceVar(&types, "type", nil, "only these types: "+strings.Join(eventTypes, ", "))
	cmd.Flags().StringVar(&after, "after", "", "begin after the event with this `id`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one event to a line")
	return cmd
}

var eventTypes = []string{"created", "state", "boot_retry", "updated", "health", "deleted", "host"}

// followEvents calls do with each event. A daemon that went away once it had answered is waited for; it may come back at another
// address, and the old token may have ended meanwhile.
func (a *app) followEvents(ctx context.Context, after string, do func(api.Event) error) error {
	var away absence
	for {
		before := after
		err := a.readEvents(ctx, &after, do)
		if after != before {
			away = absence{}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, api.Invalid) && after != "" && before == after:
			return usagef("--after %q: an id of an event, as --json shows it", after)
		case err != nil && (after == "" || codeOf(err) != exitUnreachable):
			return err
		}
		if err := away.wait(ctx, a.say, reconnectPause); err != nil {
			return err
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

// A whose is what was given to name an instance. Where one has that very name or id, it is the beginning of no id.
type whose struct {
	text  string
	exact bool
}

// namesOf asks which of the names there are. One that there is not yet may come.
func (a *app) namesOf(ctx context.Context, names []string) (all []*whose, err error) {
	for _, name := range names {
		c, err := a.client()
		if err != nil {
			return nil, err
		}
		inst, err := c.Instance(ctx, name)
		if err != nil && (ctx.Err() != nil || codeOf(err) == exitUnreachable) {
			return nil, err
		}
		if gone(err) {
			a.hint(fmt.Sprintf("hale: there is no %s yet", name))
		}
		all = append(all, &whose{name, err == nil && (inst.Name == name || inst.ID == name)})
	}
	return all, nil
}

func (w *whose) is(e api.Event) bool {
	if w.text == e.Name || w.text == e.Instance {
		w.exact = w.exact || w.text != ""
		return w.text != ""
	}
	return !w.exact && w.text != "" && strings.HasPrefix(e.Instance, w.text)
}

func wanted(e api.Event, types []string, names []*whose) bool {
	if e.Type == hale.EventResync {
		return true
	}
	ours := len(names) == 0
	for _, w := range names { // all of them: each learns of its name
		ours = w.is(e) || ours
	}
	return ours && (len(types) == 0 || slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, e.Type) }))
}

func eventLine(e api.Event) string {
	who := cmp.Or(e.Name, e.Instance, "-")
	return oneLine(fmt.Sprintf("%s %s %s %s", e.Time.Local().Format("15:04:05.000"), who, e.Type, eventText(e)))
}

// eventText says the data of an event, as the other commands say it: what changed into what and why. That of a type that is not known is
// shown as it is.
func eventText(e api.Event) string {
	if e.Type == hale.EventResync {
		return "something was missed: list again"
	}
	var data struct {
		From, To, Reason, Image string
		ExitCode                *int `json:"exit_code"`
		Fields                  []string
		Boot                    int
		Suspect                 *bool `json:"host_suspect"`
		Turned                  int   `json:"turned_unhealthy"`
		Healthy                 int   `json:"healthy_again"`
		Watched                 int
	}
	if len(e.Data) == 0 || json.Unmarshal(e.Data, &data) != nil {
		return ""
	}
	switch {
	case e.Type == "health":
		var tr api.HealthTransition
		if json.Unmarshal(e.Data, &tr) == nil && tr.To != "" {
			return changeLine(tr)
		}
	case e.Type == "host" && data.Suspect != nil && *data.Suspect:
		return fmt.Sprintf("suspected: %d of %d instances turned unhealthy at once", data.Turned, data.Watched)
	case e.Type == "host" && data.Suspect != nil && data.Reason != "":
		return "suspected no more: " + data.Reason
	case e.Type == "host" && data.Suspect != nil:
		return fmt.Sprintf("suspected no more: %d turned unhealthy, %d of them are healthy again", data.Turned, data.Healthy)
	case e.Type == "updated" && len(data.Fields) > 0:
		return strings.Join(data.Fields, ", ")
	case e.Type == "boot_retry" && data.Boot > 0:
		return strings.TrimSuffix(fmt.Sprintf("boot %d: %s", data.Boot, data.Reason), ": ")
	case e.Type == "deleted":
		return data.Reason
	case data.To != "":
		s := data.From + " → " + data.To
		if data.ExitCode != nil {
			s += fmt.Sprintf(" (exit %d)", *data.ExitCode)
		}
		if data.Reason != "" {
			s += ": " + data.Reason
		}
		return s
	case data.Image != "":
		return data.Image
	}
	return string(e.Data)
}
