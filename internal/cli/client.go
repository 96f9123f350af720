package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func (a *app) clientCommands() []*cobra.Command {
	return []*cobra.Command{
		a.createCommand("run"), a.createCommand("create"), a.psCommand(), a.inspectCommand(), a.healthCommand(), a.logsCommand(), a.execCommand(),
		a.startCommand(), a.stopCommand(), a.rmCommand(), a.waitCommand(), a.updateCommand(), a.statCommand(), a.eventsCommand(),
		a.pullCommand(), a.importCommand(), a.imagesCommand(), a.tagCommand(), a.rmiCommand(),
	}
}

// client returns the client of the daemon that HALE_URL names, or else of the one on this host.
func (a *app) client() (*hale.Client, error) {
	url, token := a.Getenv("HALE_URL"), a.Getenv("HALE_TOKEN")
	if url == "" {
		if a.LocalDaemon == nil {
			return nil, usagef("HALE_URL is not set")
		}
		var local string
		var err error
		if url, local, err = a.LocalDaemon(); err != nil {
			return nil, exitStatus{exitUnreachable, err}
		}
		if token == "" {
			token = local
		}
	}
	agent := "hale-cli"
	if a.Version != "" {
		agent += "/" + a.Version
	}
	c, err := hale.New(url, token, hale.WithUserAgent(agent))
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// complain prints an error for a person: what was wrong, and what to do where that is known.
func (a *app) complain(err error) {
	text := strings.TrimSpace(err.Error())
	if kind, ok := errors.AsType[api.Kind](err); ok {
		text = strings.TrimSuffix(text, ": "+kind.Error()) // it says nothing to a person
	}
	if e, ok := errors.AsType[*hale.UnreachableError](err); ok {
		words := fmt.Sprintf("the daemon does not answer at %s: %v\n  start it with `hale serve`, or say where one is with HALE_URL", e.URL, e.Err)
		text = strings.Replace(text, e.Error(), words, 1)
	}
	if e, ok := errors.AsType[*hale.Error](err); ok {
		for _, d := range e.Details {
			if line := strings.TrimPrefix(d.Field+": "+d.Message, ": "); !strings.Contains(text, d.Message) {
				text += "\n  " + line
			}
		}
		if e.Kind == api.Internal && e.RequestID != "" && !strings.Contains(text, e.RequestID) {
			text += fmt.Sprintf("\n  the daemon's log says more about request %s", e.RequestID)
		}
	}
	if foreign(err) {
		text = oneLine(text) + "\n  that is no answer of a hale daemon; HALE_URL says where one is"
	}
	if errors.Is(err, api.Unauthorized) {
		text += "\n  set HALE_TOKEN to what `hale token` prints on the daemon's host"
	}
	fmt.Fprintln(a.Stderr, "hale: "+clean(text))
}

// hint prints what a person may do next, and nothing where nobody looks.
func (a *app) hint(text string) {
	if _, ok := terminal(a.Stderr); ok {
		fmt.Fprintln(a.Stderr, clean(text))
	}
}

// printJSON prints the API's own object, indented.
func (a *app) printJSON(v any) error { return writeJSON(a.Stdout, v, "  ") }

// writeJSON writes v as JSON and a newline. What a terminal might obey is escaped, also where JSON itself would not.
func writeJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var out strings.Builder
	for _, r := range b.String() {
		if r != '\n' && unsafe(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// coloured reports whether standard output takes colours.
func (a *app) coloured() bool {
	_, ok := terminal(a.Stdout)
	return ok && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb"
}

// noCheck reports whether nothing checks an instance's health.
func noCheck(inst api.Instance) bool {
	return inst.HealthStatus == nil || inst.HealthStatus.Status == api.HealthStateDisabled
}
