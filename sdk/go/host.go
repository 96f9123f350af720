package hale

import (
	"context"

	"github.com/halevm/hale/api"
)

// Health tells that the daemon is up, and when its controllers were last active. It needs no token.
func (c *Client) Health(ctx context.Context) (api.Health, error) {
	req, err := c.getHealth(ctx)
	return call[api.Health](c, req, err)
}

// Resources tells what the host has and what is allocated.
func (c *Client) Resources(ctx context.Context) (api.Resources, error) {
	req, err := c.getResources(ctx)
	return call[api.Resources](c, req, err)
}

// Capabilities tells what the server can do.
func (c *Client) Capabilities(ctx context.Context) (api.Capabilities, error) {
	req, err := c.getCapabilities(ctx)
	return call[api.Capabilities](c, req, err)
}
