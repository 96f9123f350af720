package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// each does something with each name in turn, goes on after an error, and returns the first. It prints the names that went well. After Ctrl-C left
// says what becomes of the one that it was at; it may be nil.
func (a *app) each(ctx context.Context, names []string, do func(c *hale.Client, name string) error, left func(look context.Context, c *hale.Client, name string) string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var first error
	for i, name := range names {
		if ctx.Err() != nil {
			a.untouched(names[i:])
			return ctx.Err()
		}
		err := do(c, name)
		if err != nil && ctx.Err() != nil {
			a.leaveOne(ctx, c, name, left)
			a.untouched(names[i+1:])
			return ctx.Err()
		}
		if err == nil {
			fmt.Fprintln(a.Stdout, name)
			continue
		}
		if len(names) == 1 {
			return err
		}
		a.complain(err)
		if first == nil {
			first = exitStatus{code: codeOf(err)}
		}
	}
	return first
}

// leaveOne says, after Ctrl-C, what becomes of the one that a command was at.
func (a *app) leaveOne(ctx context.Context, c *hale.Client, name string, left func(context.Context, *hale.Client, string) string) {
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	if left == nil {
		return
	}
	if text := left(look, c, name); text != "" {
		fmt.Fprintln(a.Stderr, "hale: "+oneLine(text))
	}
}

// untouched says that a command never came to these.
func (a *app) untouched(names []string) {
	if len(names) > 0 {
		fmt.Fprintln(a.Stderr, "hale: nothing was done to "+oneLine(strings.Join(names, ", ")))
	}
}

// leftAs is how an instance is that a command was at, with what else there is to say of it. The daemon finishes what it had begun.
func leftAs(more string) func(context.Context, *hale.Client, string) string {
	return func(look context.Context, c *hale.Client, name string) string {
		inst, err := c.Instance(look, name)
		if err != nil {
			return ""
		}
		return fmt.Sprintf("%s is %s now, and the daemon goes on with what it has begun", name, inst.State) + strings.ReplaceAll(more, "NAME", name)
	}
}

func (a *app) stopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop NAME...", Short: "Stop instances in an orderly way", GroupID: groupInstances, Args: cobra.MinimumNArgs(1),
		Long: "Stop instances: the program gets its stop signal and ten seconds, then the machine is powered off. What it wrote is kept.",
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.each(cmd.Context(), names, func(c *hale.Client, name string) error {
				_, err := c.StopInstance(cmd.Context(), name)
				return err
			}, leftAs(""))
		},
	}
}

func (a *app) startCommand() *cobra.Command {
	return &cobra.Command{
		Use: "start NAME...", Short: "Start instances that are stopped", GroupID: groupInstances, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.each(cmd.Context(), names, func(c *hale.Client, name string) error {
				_, err := c.StartInstance(cmd.Context(), name, api.StartInstanceRequest{})
				return err
			}, leftAs(""))
		},
	}
}

func (a *app) rmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME...", Short: "Delete instances, with what they wrote", GroupID: groupInstances, Args: cobra.MinimumNArgs(1),
		Long: "Delete instances. One that runs is stopped in an orderly way first; with -f its machine is powered off at once.",
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.each(cmd.Context(), names, func(c *hale.Client, name string) error {
				return c.DeleteInstance(cmd.Context(), name, !force)
			}, leftAs("; `hale rm -f NAME` deletes it at once"))
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not wait for an orderly end")
	return cmd
}
