package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// each does something with each name in turn, goes on after an error, and returns the first. It prints the names that went well.
func (a *app) each(ctx context.Context, names []string, do func(c *hale.Client, name string) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var first error
	for _, name := range names {
		err := do(c, name)
		if ctx.Err() != nil {
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

func (a *app) stopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop NAME...", Short: "Stop instances in an orderly way", GroupID: groupInstances, Args: cobra.MinimumNArgs(1),
		Long: "Stop instances: the program gets its stop signal and ten seconds, then the machine is powered off. What it wrote is kept.",
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.each(cmd.Context(), names, func(c *hale.Client, name string) error {
				_, err := c.StopInstance(cmd.Context(), name)
				return err
			})
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
			})
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
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not wait for an orderly end")
	return cmd
}
