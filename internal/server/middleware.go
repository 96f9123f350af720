package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/api"
)

// requestInfo is what is known of one request beside itself.
type requestInfo struct {
	id    string
	route string // the pattern that took it, for metrics
	code  string // of the error it was answered with
}

type infoKey struct{}

func infoOf(ctx context.Context) *requestInfo {
	if i, ok := ctx.Value(infoKey{}).(*requestInfo); ok {
		return i
	}
	return new(requestInfo)
}

// watch is the outermost layer: it gives the request an id, contains a panic, and counts what came of it.
func (s *Server) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &requestInfo{id: rand.Text()[:12], route: "none"}
		r = r.WithContext(context.WithValue(r.Context(), infoKey{}, info))
		rec := &recorder{ResponseWriter: w}
		if r.ContentLength != 0 {
			// Also a body that nobody wants is waited for: net/http reads the rest of it. Who reads a body lifts this.
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // not every connection has one
		}
		start := time.Now()
		defer func() {
			v := recover()
			if v != nil && v != http.ErrAbortHandler {
				s.metrics.panics.WithLabelValues("handler").Inc()
				s.log.Error("a handler panicked", "request", info.id, "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if rec.status == 0 {
					s.fail(rec, r, fmt.Errorf("panic: %v", v))
				} else {
					v = http.ErrAbortHandler // the answer is half-way out: the client must see that it was cut
				}
			}
			s.metrics.observe(info, r.Method, rec.status, time.Since(start))
			if v == http.ErrAbortHandler {
				panic(v)
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder remembers the status, and gives a client writeTime to take the answer; what lasts longer says so itself. Unwrap lets
// http.ResponseController reach what lies below.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.begin(status)
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.begin(http.StatusOK)
	return r.ResponseWriter.Write(p)
}

func (r *recorder) begin(status int) {
	if r.status == 0 {
		r.status = status
		http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTime)) // not every connection has one
	}
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// authorize lets a request through that carries a valid token.
func (s *Server) authorize(r *http.Request) error {
	token, ok := bearer(r)
	if !ok {
		return fmt.Errorf("a bearer token is needed (Authorization: Bearer …; `hale token` prints one): %w", api.Unauthorized)
	}
	if err := s.config.Verify(token, time.Now()); err != nil {
		return fmt.Errorf("check the token: %w", err)
	}
	return nil
}

func bearer(r *http.Request) (token string, ok bool) {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(given), strings.EqualFold(scheme, "Bearer")
}

// recheck is how often the token of a request that lasts is looked at again.
const recheck = 10 * time.Second

// errRevoked ends a request that lasts when a new secret has ended its token. That one runs out ends none.
var errRevoked = &api.Error{Kind: api.Unauthorized, Message: "a new secret has ended the token: make another with `hale token`"}

// whileValid makes a request end with its token, until the func that it returns is called.
func (s *Server) whileValid(r *http.Request) (*http.Request, func()) {
	token, _ := bearer(r)
	began := time.Now()
	ctx, cancel := context.WithCancelCause(r.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(recheck)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if errors.Is(s.config.Verify(token, began), api.Unauthorized) {
					cancel(errRevoked)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return r.WithContext(ctx), func() {
		cancel(nil)
		wg.Wait()
	}
}

// waitForNoBody is for somebody without a token.
func waitForNoBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now())
		w.Header().Set("Connection", "close")
	}
}

// bounded cuts a body at limit bytes; one that is longer is an error of kind api.TooLarge where it is read.
func bounded(w http.ResponseWriter, r *http.Request, limit int64) {
	r.Body = http.MaxBytesReader(w, r.Body, limit)
}

// tooLarge makes http.MaxBytesReader's error one of ours.
func tooLarge(err error) error {
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &api.Error{Kind: api.TooLarge, Message: "the body is longer than " + strconv.FormatInt(e.Limit, 10) + " bytes"}
	}
	return err
}
