package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
)

func (a *app) updateCommand() *cobra.Command {
	var (
		check         checkFlags
		env           envFlags
		unset         []string
		ttl           time.Duration
		image, asJSON bool
	)
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change the health check, the environment, or the time to live", GroupID: groupInstances, Args: cobra.ExactArgs(1),
		Long: `Change an instance in place. A health check replaces the old one whole; numbers alone, such as --health-interval, change the
one in force, and --health-cmd the image's own. The environment is merged, and used from the next
start. The time to live counts from now; 0s takes it away.`,
		Example: "  hale update web --health-http :80/ --health-interval 5s\n  hale update web --no-healthcheck\n  hale update web --ttl 0s",
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.UpdateInstanceRequest
			var err error
			if req.HealthCheck, req.HealthCheckOverride, err = check.check(); err != nil {
				return err
			}
			if req.Env, err = env.changes(unset, a.Getenv); err != nil {
				return err
			}
			if image {
				if req.HealthCheck != nil || req.HealthCheckOverride != nil {
					return usagef("--image-healthcheck does not go with another check")
				}
				req.HealthCheck = json.RawMessage("null")
			}
			if cmd.Flags().Changed("ttl") {
				req.TTL = ptr(ttl.String())
			}
			if req.HealthCheck == nil && req.HealthCheckOverride == nil && len(req.Env) == 0 && req.TTL == nil {
				return usagef("nothing to change: give --health-…, --no-healthcheck, --image-healthcheck, --env, --unset-env or --ttl")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if req.HealthCheckOverride != nil && !check.given("cmd") {
				inst, err := c.Instance(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				whole, err := check.onto(inst)
				if err != nil {
					return err
				}
				if whole != nil {
					req.HealthCheck, req.HealthCheckOverride = whole, nil
				}
			}
			inst, err := c.UpdateInstance(cmd.Context(), args[0], req)
			if err != nil {
				return check.explain(err)
			}
			if asJSON {
				return a.printJSON(inst)
			}
			fmt.Fprintln(a.Stdout, inst.Name)
			return nil
		},
	}
	check.register(cmd.Flags())
	cmd.Flags().BoolVar(&image, "image-healthcheck", false, "go back to the image's own check")
	env.register(cmd.Flags())
	cmd.Flags().StringArrayVar(&unset, "unset-env", nil, "take a variable away, `KEY`")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "delete the instance after this long from now; 0s: never")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the instance as JSON")
	return cmd
}

// changes is what the flags change in an environment: a value to set, or nil for a variable to take away.
func (f *envFlags) changes(unset []string, getenv func(string) string) (map[string]*string, error) {
	set, err := f.read(getenv)
	if err != nil {
		return nil, err
	}
	changes := make(map[string]*string, len(set)+len(unset))
	for _, key := range unset {
		changes[key] = nil
	}
	for key, value := range set {
		changes[key] = &value
	}
	return changes, nil
}
