// Code generated from api/openapi.yaml by github.com/oapi-codegen/oapi-codegen/v2 v2.8.2. DO NOT EDIT.

package hale

import (
	"context"
	"io"
	"net/http"

	"github.com/halevm/hale/api"
)

// getCapabilities is the request GET /capabilities: say what this server can do.
func (c *Client) getCapabilities(ctx context.Context) (*http.Request, error) {
	b := builder{method: "GET", path: "/capabilities"}
	return b.build(ctx, c)
}

// getDocs is the request GET /docs: this description, for people.
func (c *Client) getDocs(ctx context.Context) (*http.Request, error) {
	b := builder{method: "GET", path: "/docs"}
	return b.build(ctx, c)
}

// streamEvents is the request GET /events: follow what happens.
func (c *Client) streamEvents(ctx context.Context, params api.StreamEventsParams) (*http.Request, error) {
	b := builder{method: "GET", path: "/events"}
	b.header("Last-Event-ID", params.LastEventID)
	return b.build(ctx, c)
}

// getHealth is the request GET /health: whether the daemon answers.
func (c *Client) getHealth(ctx context.Context) (*http.Request, error) {
	b := builder{method: "GET", path: "/health"}
	return b.build(ctx, c)
}

// listImages is the request GET /images: list images.
func (c *Client) listImages(ctx context.Context, params api.ListImagesParams) (*http.Request, error) {
	b := builder{method: "GET", path: "/images"}
	b.query("deepObject", true, "tags", params.Tags)
	return b.build(ctx, c)
}

// createImage is the request POST /images: pull an image.
func (c *Client) createImage(ctx context.Context, body api.CreateImageJSONRequestBody) (*http.Request, error) {
	b := builder{method: "POST", path: "/images"}
	b.json(body)
	return b.build(ctx, c)
}

// importImage is the request POST /images/import: import an image from a file.
func (c *Client) importImage(ctx context.Context, params api.ImportImageParams, contentType string, body io.Reader) (*http.Request, error) {
	b := builder{method: "POST", path: "/images/import"}
	if params.Name != nil {
		b.query("form", true, "name", *params.Name)
	}
	b.body(contentType, body)
	return b.build(ctx, c)
}

// deleteImage is the request DELETE /images/{name}: delete an image.
func (c *Client) deleteImage(ctx context.Context, name string) (*http.Request, error) {
	b := builder{method: "DELETE", path: "/images/{name}"}
	b.segment("name", name)
	return b.build(ctx, c)
}

// getImage is the request GET /images/{name}: describe an image.
func (c *Client) getImage(ctx context.Context, name string, params api.GetImageParams) (*http.Request, error) {
	b := builder{method: "GET", path: "/images/{name}"}
	b.segment("name", name)
	if params.Wait != nil {
		b.query("form", true, "wait", *params.Wait)
	}
	return b.build(ctx, c)
}

// tagImage is the request POST /images/{name}/tag: give an image a further name.
func (c *Client) tagImage(ctx context.Context, name string, body api.TagImageJSONRequestBody) (*http.Request, error) {
	b := builder{method: "POST", path: "/images/{name}/tag"}
	b.segment("name", name)
	b.json(body)
	return b.build(ctx, c)
}

// listInstances is the request GET /instances: list instances.
func (c *Client) listInstances(ctx context.Context, params api.ListInstancesParams) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances"}
	if params.State != nil {
		b.query("form", true, "state", *params.State)
	}
	if params.Health != nil {
		b.query("form", true, "health", *params.Health)
	}
	b.query("deepObject", true, "tags", params.Tags)
	return b.build(ctx, c)
}

// createInstance is the request POST /instances: create an instance and start it.
func (c *Client) createInstance(ctx context.Context, body api.CreateInstanceJSONRequestBody) (*http.Request, error) {
	b := builder{method: "POST", path: "/instances"}
	b.json(body)
	return b.build(ctx, c)
}

// deleteInstance is the request DELETE /instances/{id}: stop and delete an instance.
func (c *Client) deleteInstance(ctx context.Context, id string, params api.DeleteInstanceParams) (*http.Request, error) {
	b := builder{method: "DELETE", path: "/instances/{id}"}
	b.segment("id", id)
	if params.GracefulShutdown != nil {
		b.query("form", true, "graceful_shutdown", *params.GracefulShutdown)
	}
	return b.build(ctx, c)
}

// getInstance is the request GET /instances/{id}: describe an instance.
func (c *Client) getInstance(ctx context.Context, id string) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances/{id}"}
	b.segment("id", id)
	return b.build(ctx, c)
}

// updateInstance is the request PATCH /instances/{id}: change an instance in place.
func (c *Client) updateInstance(ctx context.Context, id string, body api.UpdateInstanceJSONRequestBody) (*http.Request, error) {
	b := builder{method: "PATCH", path: "/instances/{id}"}
	b.segment("id", id)
	b.json(body)
	return b.build(ctx, c)
}

// putInstance is the request PUT /instances/{id}: change an instance in place.
func (c *Client) putInstance(ctx context.Context, id string, body api.PutInstanceJSONRequestBody) (*http.Request, error) {
	b := builder{method: "PUT", path: "/instances/{id}"}
	b.segment("id", id)
	b.json(body)
	return b.build(ctx, c)
}

// execInstance is the request GET /instances/{id}/exec: run a program in an instance.
func (c *Client) execInstance(ctx context.Context, id string) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances/{id}/exec"}
	b.segment("id", id)
	return b.build(ctx, c)
}

// getInstanceHealth is the request GET /instances/{id}/health: describe the health of an instance.
func (c *Client) getInstanceHealth(ctx context.Context, id string) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances/{id}/health"}
	b.segment("id", id)
	return b.build(ctx, c)
}

// checkInstanceHealth is the request POST /instances/{id}/health/check: check now.
func (c *Client) checkInstanceHealth(ctx context.Context, id string) (*http.Request, error) {
	b := builder{method: "POST", path: "/instances/{id}/health/check"}
	b.segment("id", id)
	return b.build(ctx, c)
}

// getInstanceLogs is the request GET /instances/{id}/logs: read what an instance wrote.
func (c *Client) getInstanceLogs(ctx context.Context, id string, params api.GetInstanceLogsParams) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances/{id}/logs"}
	b.segment("id", id)
	if params.Source != nil {
		b.query("form", true, "source", *params.Source)
	}
	if params.Tail != nil {
		b.query("form", true, "tail", *params.Tail)
	}
	if params.Follow != nil {
		b.query("form", true, "follow", *params.Follow)
	}
	if params.Ids != nil {
		b.query("form", true, "ids", *params.Ids)
	}
	b.header("Last-Event-ID", params.LastEventID)
	return b.build(ctx, c)
}

// startInstance is the request POST /instances/{id}/start: start a stopped instance.
func (c *Client) startInstance(ctx context.Context, id string, body api.StartInstanceJSONRequestBody) (*http.Request, error) {
	b := builder{method: "POST", path: "/instances/{id}/start"}
	b.segment("id", id)
	b.json(body)
	return b.build(ctx, c)
}

// statInstancePath is the request GET /instances/{id}/stat: describe a path in an instance.
func (c *Client) statInstancePath(ctx context.Context, id string, params api.StatInstancePathParams) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances/{id}/stat"}
	b.segment("id", id)
	b.query("form", true, "path", params.Path)
	if params.FollowLinks != nil {
		b.query("form", true, "follow_links", *params.FollowLinks)
	}
	return b.build(ctx, c)
}

// getInstanceStats is the request GET /instances/{id}/stats: measure what an instance uses.
func (c *Client) getInstanceStats(ctx context.Context, id string) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances/{id}/stats"}
	b.segment("id", id)
	return b.build(ctx, c)
}

// stopInstance is the request POST /instances/{id}/stop: stop an instance.
func (c *Client) stopInstance(ctx context.Context, id string) (*http.Request, error) {
	b := builder{method: "POST", path: "/instances/{id}/stop"}
	b.segment("id", id)
	return b.build(ctx, c)
}

// waitForInstance is the request GET /instances/{id}/wait: wait for a state or a health.
func (c *Client) waitForInstance(ctx context.Context, id string, params api.WaitForInstanceParams) (*http.Request, error) {
	b := builder{method: "GET", path: "/instances/{id}/wait"}
	b.segment("id", id)
	if params.State != nil {
		b.query("form", true, "state", *params.State)
	}
	if params.Health != nil {
		b.query("form", true, "health", *params.Health)
	}
	if params.Timeout != nil {
		b.query("form", true, "timeout", *params.Timeout)
	}
	return b.build(ctx, c)
}

// getMetrics is the request GET /metrics: metrics for Prometheus.
func (c *Client) getMetrics(ctx context.Context) (*http.Request, error) {
	b := builder{method: "GET", path: "/metrics"}
	return b.build(ctx, c)
}

// getOpenAPIJSON is the request GET /openapi.json: this description, as JSON.
func (c *Client) getOpenAPIJSON(ctx context.Context) (*http.Request, error) {
	b := builder{method: "GET", path: "/openapi.json"}
	return b.build(ctx, c)
}

// getOpenAPIYAML is the request GET /openapi.yaml: this description, as YAML.
func (c *Client) getOpenAPIYAML(ctx context.Context) (*http.Request, error) {
	b := builder{method: "GET", path: "/openapi.yaml"}
	return b.build(ctx, c)
}

// getResources is the request GET /resources: say what the host has and what is allocated.
func (c *Client) getResources(ctx context.Context) (*http.Request, error) {
	b := builder{method: "GET", path: "/resources"}
	return b.build(ctx, c)
}
