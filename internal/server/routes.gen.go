// Code generated from api/openapi.yaml by github.com/oapi-codegen/oapi-codegen/v2 v2.8.2. DO NOT EDIT.

package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/halevm/hale/api"
	"github.com/oapi-codegen/runtime"
)

// A ServerInterface answers every route of the API. Parameters come decoded; bodies are the method's to read.
type ServerInterface interface {
	// GetCapabilities answers GET /capabilities: say what this server can do.
	GetCapabilities(w http.ResponseWriter, r *http.Request)
	// GetDocs answers GET /docs: this description, for people.
	GetDocs(w http.ResponseWriter, r *http.Request)
	// StreamEvents answers GET /events: follow what happens.
	StreamEvents(w http.ResponseWriter, r *http.Request, params api.StreamEventsParams)
	// GetHealth answers GET /health: whether the daemon answers.
	GetHealth(w http.ResponseWriter, r *http.Request)
	// ListImages answers GET /images: list images.
	ListImages(w http.ResponseWriter, r *http.Request, params api.ListImagesParams)
	// CreateImage answers POST /images: pull an image.
	CreateImage(w http.ResponseWriter, r *http.Request)
	// ImportImage answers POST /images/import: import an image from a file.
	ImportImage(w http.ResponseWriter, r *http.Request, params api.ImportImageParams)
	// DeleteImage answers DELETE /images/{name}: delete an image.
	DeleteImage(w http.ResponseWriter, r *http.Request, name string)
	// GetImage answers GET /images/{name}: describe an image.
	GetImage(w http.ResponseWriter, r *http.Request, name string, params api.GetImageParams)
	// TagImage answers POST /images/{name}/tag: give an image a further name.
	TagImage(w http.ResponseWriter, r *http.Request, name string)
	// ListInstances answers GET /instances: list instances.
	ListInstances(w http.ResponseWriter, r *http.Request, params api.ListInstancesParams)
	// CreateInstance answers POST /instances: create an instance and start it.
	CreateInstance(w http.ResponseWriter, r *http.Request)
	// DeleteInstance answers DELETE /instances/{id}: stop and delete an instance.
	DeleteInstance(w http.ResponseWriter, r *http.Request, id string, params api.DeleteInstanceParams)
	// GetInstance answers GET /instances/{id}: describe an instance.
	GetInstance(w http.ResponseWriter, r *http.Request, id string)
	// UpdateInstance answers PATCH /instances/{id}: change an instance in place.
	UpdateInstance(w http.ResponseWriter, r *http.Request, id string)
	// PutInstance answers PUT /instances/{id}: change an instance in place.
	PutInstance(w http.ResponseWriter, r *http.Request, id string)
	// ExecInstance answers GET /instances/{id}/exec: run a program in an instance.
	ExecInstance(w http.ResponseWriter, r *http.Request, id string)
	// GetInstanceHealth answers GET /instances/{id}/health: describe the health of an instance.
	GetInstanceHealth(w http.ResponseWriter, r *http.Request, id string)
	// CheckInstanceHealth answers POST /instances/{id}/health/check: check now.
	CheckInstanceHealth(w http.ResponseWriter, r *http.Request, id string)
	// GetInstanceLogs answers GET /instances/{id}/logs: read what an instance wrote.
	GetInstanceLogs(w http.ResponseWriter, r *http.Request, id string, params api.GetInstanceLogsParams)
	// StartInstance answers POST /instances/{id}/start: start a stopped instance.
	StartInstance(w http.ResponseWriter, r *http.Request, id string)
	// StatInstancePath answers GET /instances/{id}/stat: describe a path in an instance.
	StatInstancePath(w http.ResponseWriter, r *http.Request, id string, params api.StatInstancePathParams)
	// GetInstanceStats answers GET /instances/{id}/stats: measure what an instance uses.
	GetInstanceStats(w http.ResponseWriter, r *http.Request, id string)
	// StopInstance answers POST /instances/{id}/stop: stop an instance.
	StopInstance(w http.ResponseWriter, r *http.Request, id string)
	// WaitForInstance answers GET /instances/{id}/wait: wait for a state or a health.
	WaitForInstance(w http.ResponseWriter, r *http.Request, id string, params api.WaitForInstanceParams)
	// GetMetrics answers GET /metrics: metrics for Prometheus.
	GetMetrics(w http.ResponseWriter, r *http.Request)
	// GetOpenAPIJSON answers GET /openapi.json: this description, as JSON.
	GetOpenAPIJSON(w http.ResponseWriter, r *http.Request)
	// GetOpenAPIYAML answers GET /openapi.yaml: this description, as YAML.
	GetOpenAPIYAML(w http.ResponseWriter, r *http.Request)
	// GetResources answers GET /resources: say what the host has and what is allocated.
	GetResources(w http.ResponseWriter, r *http.Request)
}

type routeTable struct {
	si ServerInterface
	o  RouteOptions
}

// query decodes one parameter of the query into dst; it answers the request and returns false where that cannot be done.
func (t routeTable) query(w http.ResponseWriter, r *http.Request, name, style string, explode, required bool, dst any) bool {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // what of it is none would be left out, a filter too
		err = fmt.Errorf("it cannot be read: %w; in a value, %% is written %%25, & %%26 and ; %%3B", err)
		t.o.ParamError(w, r, &ParamError{Name: "query", In: "query", Err: err})
		return false
	}
	if object, ok := dst.(*map[string]string); ok && style == "deepObject" {
		*object, err = queryObject(values, name) // the parser panics at some
	} else {
		err = runtime.BindQueryParameterWithOptions(style, explode, required, name, values, dst, runtime.BindQueryParameterOptions{})
	}
	if err == nil {
		return true
	}
	if _, missing := errors.AsType[*runtime.RequiredParameterError](err); missing {
		err = ErrParamRequired
	} else {
		switch dst.(type) { // in the words of who sent it, not of the parser
		case *int, **int:
			err = errors.New("a whole number")
		case *bool, **bool:
			err = errors.New("true or false")
		}
	}
	t.o.ParamError(w, r, &ParamError{Name: name, In: "query", Err: err})
	return false
}

func (t routeTable) getCapabilities(w http.ResponseWriter, r *http.Request) {
	t.si.GetCapabilities(w, r)
}

func (t routeTable) getDocs(w http.ResponseWriter, r *http.Request) {
	t.si.GetDocs(w, r)
}

func (t routeTable) streamEvents(w http.ResponseWriter, r *http.Request) {
	var params api.StreamEventsParams
	params.LastEventID = r.Header.Get("Last-Event-ID")
	t.si.StreamEvents(w, r, params)
}

func (t routeTable) getHealth(w http.ResponseWriter, r *http.Request) {
	t.si.GetHealth(w, r)
}

func (t routeTable) listImages(w http.ResponseWriter, r *http.Request) {
	var params api.ListImagesParams
	if !t.query(w, r, "tags", "deepObject", true, false, &params.Tags) {
		return
	}
	t.si.ListImages(w, r, params)
}

func (t routeTable) createImage(w http.ResponseWriter, r *http.Request) {
	t.si.CreateImage(w, r)
}

func (t routeTable) importImage(w http.ResponseWriter, r *http.Request) {
	var params api.ImportImageParams
	if !t.query(w, r, "name", "form", true, false, &params.Name) {
		return
	}
	t.si.ImportImage(w, r, params)
}

func (t routeTable) deleteImage(w http.ResponseWriter, r *http.Request) {
	t.si.DeleteImage(w, r, r.PathValue("name"))
}

func (t routeTable) getImage(w http.ResponseWriter, r *http.Request) {
	var params api.GetImageParams
	if !t.query(w, r, "wait", "form", true, false, &params.Wait) {
		return
	}
	t.si.GetImage(w, r, r.PathValue("name"), params)
}

func (t routeTable) tagImage(w http.ResponseWriter, r *http.Request) {
	t.si.TagImage(w, r, r.PathValue("name"))
}

func (t routeTable) listInstances(w http.ResponseWriter, r *http.Request) {
	var params api.ListInstancesParams
	if !t.query(w, r, "state", "form", true, false, &params.State) {
		return
	}
	if !t.query(w, r, "health", "form", true, false, &params.Health) {
		return
	}
	if !t.query(w, r, "tags", "deepObject", true, false, &params.Tags) {
		return
	}
	t.si.ListInstances(w, r, params)
}

func (t routeTable) createInstance(w http.ResponseWriter, r *http.Request) {
	t.si.CreateInstance(w, r)
}

func (t routeTable) deleteInstance(w http.ResponseWriter, r *http.Request) {
	var params api.DeleteInstanceParams
	if !t.query(w, r, "graceful_shutdown", "form", true, false, &params.GracefulShutdown) {
		return
	}
	t.si.DeleteInstance(w, r, r.PathValue("id"), params)
}

func (t routeTable) getInstance(w http.ResponseWriter, r *http.Request) {
	t.si.GetInstance(w, r, r.PathValue("id"))
}

func (t routeTable) updateInstance(w http.ResponseWriter, r *http.Request) {
	t.si.UpdateInstance(w, r, r.PathValue("id"))
}

func (t routeTable) putInstance(w http.ResponseWriter, r *http.Request) {
	t.si.PutInstance(w, r, r.PathValue("id"))
}

func (t routeTable) execInstance(w http.ResponseWriter, r *http.Request) {
	t.si.ExecInstance(w, r, r.PathValue("id"))
}

func (t routeTable) getInstanceHealth(w http.ResponseWriter, r *http.Request) {
	t.si.GetInstanceHealth(w, r, r.PathValue("id"))
}

func (t routeTable) checkInstanceHealth(w http.ResponseWriter, r *http.Request) {
	t.si.CheckInstanceHealth(w, r, r.PathValue("id"))
}

func (t routeTable) getInstanceLogs(w http.ResponseWriter, r *http.Request) {
	var params api.GetInstanceLogsParams
	if !t.query(w, r, "source", "form", true, false, &params.Source) {
		return
	}
	if !t.query(w, r, "tail", "form", true, false, &params.Tail) {
		return
	}
	if !t.query(w, r, "follow", "form", true, false, &params.Follow) {
		return
	}
	if !t.query(w, r, "ids", "form", true, false, &params.Ids) {
		return
	}
	params.LastEventID = r.Header.Get("Last-Event-ID")
	t.si.GetInstanceLogs(w, r, r.PathValue("id"), params)
}

func (t routeTable) startInstance(w http.ResponseWriter, r *http.Request) {
	t.si.StartInstance(w, r, r.PathValue("id"))
}

func (t routeTable) statInstancePath(w http.ResponseWriter, r *http.Request) {
	var params api.StatInstancePathParams
	if !t.query(w, r, "path", "form", true, true, &params.Path) {
		return
	}
	if !t.query(w, r, "follow_links", "form", true, false, &params.FollowLinks) {
		return
	}
	t.si.StatInstancePath(w, r, r.PathValue("id"), params)
}

func (t routeTable) getInstanceStats(w http.ResponseWriter, r *http.Request) {
	t.si.GetInstanceStats(w, r, r.PathValue("id"))
}

func (t routeTable) stopInstance(w http.ResponseWriter, r *http.Request) {
	t.si.StopInstance(w, r, r.PathValue("id"))
}

func (t routeTable) waitForInstance(w http.ResponseWriter, r *http.Request) {
	var params api.WaitForInstanceParams
	if !t.query(w, r, "state", "form", true, false, &params.State) {
		return
	}
	if !t.query(w, r, "health", "form", true, false, &params.Health) {
		return
	}
	if !t.query(w, r, "timeout", "form", true, false, &params.Timeout) {
		return
	}
	t.si.WaitForInstance(w, r, r.PathValue("id"), params)
}

func (t routeTable) getMetrics(w http.ResponseWriter, r *http.Request) {
	t.si.GetMetrics(w, r)
}

func (t routeTable) getOpenAPIJSON(w http.ResponseWriter, r *http.Request) {
	t.si.GetOpenAPIJSON(w, r)
}

func (t routeTable) getOpenAPIYAML(w http.ResponseWriter, r *http.Request) {
	t.si.GetOpenAPIYAML(w, r)
}

func (t routeTable) getResources(w http.ResponseWriter, r *http.Request) {
	t.si.GetResources(w, r)
}

// RouteOptions say how routes are registered.
type RouteOptions struct {
	// Middleware wraps each handler; the first is the innermost. The request's Pattern is set when they run.
	Middleware []func(http.Handler) http.Handler
	// ParamError answers a request whose parameter could not be decoded; err is a *ParamError.
	ParamError func(w http.ResponseWriter, r *http.Request, err *ParamError)
}

// A ParamError is a parameter that is missing or does not decode.
type ParamError struct {
	Name string // "tail"
	In   string // "query", "header" or "path"
	Err  error
}

// ErrParamRequired is the Err of a parameter that is missing.
var ErrParamRequired = errors.New("it is required")

func (e *ParamError) Error() string { return fmt.Sprintf("%s parameter %q: %v", e.In, e.Name, e.Err) }

// Unwrap returns Err.
func (e *ParamError) Unwrap() error { return e.Err }

// RegisterRoutes makes mux answer every route of the API with si.
func RegisterRoutes(mux *http.ServeMux, si ServerInterface, o RouteOptions) {
	routes := routeTable{si, o}
	for _, route := range []struct {
		pattern string
		handler http.HandlerFunc
	}{
		{"GET /capabilities", routes.getCapabilities},
		{"GET /docs", routes.getDocs},
		{"GET /events", routes.streamEvents},
		{"GET /health", routes.getHealth},
		{"GET /images", routes.listImages},
		{"POST /images", routes.createImage},
		{"DELETE /images/{name}", routes.deleteImage},
		{"GET /images/{name}", routes.getImage},
		{"POST /images/{name}/tag", routes.tagImage},
		{"POST /images/import", routes.importImage},
		{"GET /instances", routes.listInstances},
		{"POST /instances", routes.createInstance},
		{"DELETE /instances/{id}", routes.deleteInstance},
		{"GET /instances/{id}", routes.getInstance},
		{"PATCH /instances/{id}", routes.updateInstance},
		{"PUT /instances/{id}", routes.putInstance},
		{"GET /instances/{id}/exec", routes.execInstance},
		{"GET /instances/{id}/health", routes.getInstanceHealth},
		{"POST /instances/{id}/health/check", routes.checkInstanceHealth},
		{"GET /instances/{id}/logs", routes.getInstanceLogs},
		{"POST /instances/{id}/start", routes.startInstance},
		{"GET /instances/{id}/stat", routes.statInstancePath},
		{"GET /instances/{id}/stats", routes.getInstanceStats},
		{"POST /instances/{id}/stop", routes.stopInstance},
		{"GET /instances/{id}/wait", routes.waitForInstance},
		{"GET /metrics", routes.getMetrics},
		{"GET /openapi.json", routes.getOpenAPIJSON},
		{"GET /openapi.yaml", routes.getOpenAPIYAML},
		{"GET /resources", routes.getResources},
	} {
		handler := http.Handler(route.handler)
		for _, wrap := range o.Middleware {
			handler = wrap(handler)
		}
		mux.Handle(route.pattern, handler)
	}
}
