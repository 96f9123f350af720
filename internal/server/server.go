// Package server is the HTTP edge: a request comes in, the domain is called, an answer goes out. It decides nothing
// about instances; it checks what a client sent, names every fault by its field, and renders what the domain says.
//
// The routes are generated from api/openapi.yaml; every one of them passes the same layers: a request id, the
// containment of panics, metrics, and a token. A Server keeps no state of its own and may be used from any goroutine.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/instance"
)

// A Config is what a Server needs. All of it is required. The domain's types stand here themselves: a fake is a driver
// beneath the domain, not another domain.
type Config struct {
	Instances *instance.Set
	Images    *image.Store
	Health    *health.Set
	Events    *event.Log

	// Verify returns nil for a valid token; for another an error of kind api.Unauthorized, whose words are for the caller.
	Verify func(token string, now time.Time) error
	// Admitted is told of each request that has shown a valid token.
	Admitted func(ctx context.Context)
	// Settled returns when what was changed of an instance has been taken in by the controllers, so that it can be shown.
	Settled func(ctx context.Context, id string)
	// Controllers tells when each controller was last active.
	Controllers func() []api.Controller
	// Host says what the host has and what is allocated.
	Resources func() (api.Resources, error)
	// Capabilities says what this server can do.
	Capabilities func(ctx context.Context) api.Capabilities

	Metrics *prometheus.Registry
	Panics  *prometheus.CounterVec // by the name of what panicked
	Started time.Time
	Version string
	Log     *slog.Logger
}

// A Server answers the API.
type Server struct {
	config      Config
	lasting     chan struct{} // one for each request that lasts
	log         *slog.Logger
	metrics     *metrics
	showMetrics http.Handler
}

// open are the routes that answer without a token.
var open = map[string]bool{"GET /health": true, "GET /openapi.yaml": true, "GET /openapi.json": true, "GET /docs": true}

// lasting are routes whose answers last as long as their client wants; there are at most maxLasting of them at a time.
var lasting = map[string]bool{
	"GET /events": true, "GET /instances/{id}/logs": true, "GET /instances/{id}/exec": true, "GET /instances/{id}/wait": true, "GET /images/{name}": true,
}

const maxLasting = 1000

// absent are routes of the compatible client that this server does not have yet: they say so, and are not repeated.
var absent = []string{
	"/instances/{id}/standby", "/instances/{id}/restore", "/instances/{id}/fork", "/instances/{id}/cp",
	"/instances/{id}/snapshots", "/instances/{id}/snapshots/", "/instances/{id}/snapshot-schedule",
	"/instances/{id}/volumes/", "/instances/{id}/auto-standby/",
	"/snapshots", "/snapshots/", "/volumes", "/volumes/", "/devices", "/devices/", "/builds", "/builds/",
	"/builders", "/builders/", "/pushes", "/pushes/", "/ingresses", "/ingresses/", "/resources/memory/reclaim", "/v2/",
}

// New returns the handler of the whole API.
func New(c Config) http.Handler {
	s := &Server{
		config: c, log: c.Log, lasting: make(chan struct{}, maxLasting), metrics: newMetrics(c.Metrics, c.Panics),
		showMetrics: promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn)}),
	}
	mux := http.NewServeMux()
	RegisterRoutes(mux, s, RouteOptions{
		Middleware: []func(http.Handler) http.Handler{s.guard},
		ParamError: func(w http.ResponseWriter, r *http.Request, err *ParamError) {
			s.fail(w, r, invalid(err.Name, err.Err.Error()))
		},
	})
	for _, path := range absent {
		mux.Handle(path, s.guard(http.HandlerFunc(s.unimplemented)))
		// Without its slash a path of a tree would be redirected to it.
		if bare := strings.TrimSuffix(path, "/"); !slices.Contains(absent, bare) {
			mux.Handle(bare, s.guard(http.HandlerFunc(s.unimplemented)))
		}
	}
	mux.Handle("/", s.guard(s.nothing(mux)))
	return s.watch(s.unredirected(mux))
}

// unredirected answers what a mux would redirect to a cleaner path: a POST that is sent elsewhere is not what was asked for.
func (s *Server) unredirected(mux http.Handler) http.Handler {
	nowhere := s.guard(http.HandlerFunc(s.notFound))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := r.URL.EscapedPath()
		clean := path.Clean(given)
		if strings.HasSuffix(given, "/") && clean != "/" {
			clean += "/"
		}
		if clean != given {
			nowhere.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, fmt.Errorf("there is nothing at %s: %w", r.URL.Path, api.NotFound))
}

// guard names the route for the metrics and lets nobody in without a token.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, route, found := strings.Cut(r.Pattern, " "); found {
			infoOf(r.Context()).route = route
		} else if r.Pattern != "" {
			infoOf(r.Context()).route = r.Pattern
		}
		if open[r.Pattern] {
			waitForNoBody(w, r)
		} else if err := s.authorize(r); err != nil {
			waitForNoBody(w, r)
			s.fail(w, r, err)
			return
		} else {
			s.config.Admitted(r.Context())
		}
		if lasting[r.Pattern] {
			select {
			case s.lasting <- struct{}{}:
				defer func() { <-s.lasting }()
			default:
				s.fail(w, r, fmt.Errorf("%d requests follow or wait for something already: %w", maxLasting, api.Unavailable))
				return
			}
			valid, end := s.whileValid(r)
			defer end()
			r = valid
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) unimplemented(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, fmt.Errorf("%s %s is not built yet: %w", r.Method, r.URL.Path, api.Unimplemented))
}

// nothing answers what no route takes: 405 where the path has other methods, else 404.
func (s *Server) nothing(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			try := r.Clone(r.Context())
			try.Method = method
			if _, pattern := mux.Handler(try); pattern != "/" && pattern != "" {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) == 0 {
			s.notFound(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		infoOf(r.Context()).code = "method_not_allowed"
		writeError(w, http.StatusMethodNotAllowed, api.ErrorBody{
			Code: "method_not_allowed", Message: fmt.Sprintf("%s takes %s, not %s", r.URL.Path, strings.Join(allowed, ", "), r.Method),
		})
	})
}

// GetHealth says that the daemon is up.
func (s *Server) GetHealth(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, api.Health{
		Status: "ok", Version: s.config.Version, StartedAt: &s.config.Started, Controllers: s.config.Controllers(),
		HostSuspect: s.config.Health.Suspect(),
	})
}

// GetResources says what the host has.
func (s *Server) GetResources(w http.ResponseWriter, r *http.Request) {
	res, err := s.config.Resources()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, res)
}

// GetCapabilities says what this server can do.
func (s *Server) GetCapabilities(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, s.config.Capabilities(r.Context()))
}

// GetMetrics is for Prometheus.
func (s *Server) GetMetrics(w http.ResponseWriter, r *http.Request) { s.showMetrics.ServeHTTP(w, r) }

// StreamEvents streams what happens.
func (s *Server) StreamEvents(w http.ResponseWriter, r *http.Request, p api.StreamEventsParams) {
	s.events(w, r, p.LastEventID)
}

// answer writes v, or the error.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, v any, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, status, v)
}
