package hale

import (
	"context"
	"time"

	"github.com/halevm/hale/api"
)

// Instances are named by their id, their name, or the beginning of an id that is no other's: the ref of the methods below.
// An instance that is not there is an error of kind api.NotFound.

// An InstanceFilter says which instances to list; the zero value is all of them.
type InstanceFilter struct {
	State  api.InstanceState
	Health api.HealthState
	Tags   map[string]string // all of them
}

// Instances lists instances.
func (c *Client) Instances(ctx context.Context, f InstanceFilter) ([]api.Instance, error) {
	req, err := c.listInstances(ctx, api.ListInstancesParams{State: given(f.State), Health: given(f.Health), Tags: f.Tags})
	return call[[]api.Instance](c, req, err)
}

// Instance describes an instance.
func (c *Client) Instance(ctx context.Context, ref string) (api.Instance, error) {
	req, err := c.getInstance(ctx, ref)
	return call[api.Instance](c, req, err)
}

// CreateInstance makes an instance and starts it; it is Initializing on return. While its image is on the way the error is of
// kind api.NotReady.
func (c *Client) CreateInstance(ctx context.Context, r api.CreateInstanceRequest) (api.Instance, error) {
	req, err := c.createInstance(ctx, r)
	return call[api.Instance](c, req, err)
}

// UpdateInstance changes what r names and leaves the rest alone.
func (c *Client) UpdateInstance(ctx context.Context, ref string, r api.UpdateInstanceRequest) (api.Instance, error) {
	req, err := c.updateInstance(ctx, ref, r)
	return call[api.Instance](c, req, err)
}

// StartInstance starts a stopped instance; it is Initializing on return.
func (c *Client) StartInstance(ctx context.Context, ref string, r api.StartInstanceRequest) (api.Instance, error) {
	req, err := c.startInstance(ctx, ref, r)
	return call[api.Instance](c, req, err)
}

// StopInstance stops an instance in an orderly way; it is Stopped on return.
func (c *Client) StopInstance(ctx context.Context, ref string) (api.Instance, error) {
	req, err := c.stopInstance(ctx, ref)
	return call[api.Instance](c, req, err)
}

// DeleteInstance deletes an instance with its writable layer. With graceful its program is asked to end first.
func (c *Client) DeleteInstance(ctx context.Context, ref string, graceful bool) error {
	req, err := c.deleteInstance(ctx, ref, api.DeleteInstanceParams{GracefulShutdown: &graceful})
	return c.send(req, err)
}

// StatPath describes a path in the guest. One that is not there is no error: Exists is false.
func (c *Client) StatPath(ctx context.Context, ref, path string, followLinks bool) (api.PathInfo, error) {
	req, err := c.statInstancePath(ctx, ref, api.StatInstancePathParams{Path: path, FollowLinks: &followLinks})
	return call[api.PathInfo](c, req, err)
}

// InstanceStats measures what an instance uses now.
func (c *Client) InstanceStats(ctx context.Context, ref string) (api.InstanceStats, error) {
	req, err := c.getInstanceStats(ctx, ref)
	return call[api.InstanceStats](c, req, err)
}

// A Wait says what to wait for: exactly one of State and Health.
type Wait struct {
	State   api.InstanceState
	Health  api.HealthState
	Timeout time.Duration // 0: 60 s; more than 5 minutes is taken for 5
}

// WaitInstance returns when an instance is as w says, when it cannot be any more, or when the time is over; the answer tells
// which.
func (c *Client) WaitInstance(ctx context.Context, ref string, w Wait) (api.WaitForStateResponse, error) {
	params := api.WaitForInstanceParams{State: given(w.State), Health: given(w.Health)}
	if w.Timeout > 0 {
		params.Timeout = given(w.Timeout.String())
	}
	req, err := c.waitForInstance(ctx, ref, params)
	return call[api.WaitForStateResponse](c, req, err)
}

// InstanceHealth describes the health of an instance.
func (c *Client) InstanceHealth(ctx context.Context, ref string) (api.InstanceHealth, error) {
	req, err := c.getInstanceHealth(ctx, ref)
	return call[api.InstanceHealth](c, req, err)
}

// CheckInstanceHealth makes a check now, or joins the one that is under way. Without a policy, or where the instance is not active,
// the error is of kind api.InvalidState.
func (c *Client) CheckInstanceHealth(ctx context.Context, ref string) (api.HealthResult, error) {
	req, err := c.checkInstanceHealth(ctx, ref)
	return call[api.HealthResult](c, req, err)
}

// given is a parameter that is sent unless it is empty.
func given[T ~string](s T) *T {
	if s == "" {
		return nil
	}
	return &s
}
