package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/halevm/hale/api"
)

// A temporary error may be another one the next time.
type temporary struct{ err *api.Error }

func (t temporary) Error() string { return t.err.Error() }
func (t temporary) Unwrap() error { return t.err }

// Temporary reports whether another try may end better: the registry could not be reached, or was at fault itself.
func Temporary(err error) bool {
	_, ok := errors.AsType[temporary](err)
	return ok
}

const maxErrorBody = 8 << 10 // bytes of an error's answer that are read

// refusal says what an answer is that is not the one which was asked for; what names the thing that was.
func (r *Repository) refusal(resp *http.Response, what string) error {
	from := quoteHost(resp.Request.URL.Host)
	if resp.Request.URL.Host != r.host {
		from += ", where the registry " + r.host + " sent us,"
	}
	words := said(resp)
	e := &api.Error{NoRetry: true}
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized && r.auth.empty():
		e.Kind, e.Code = api.Denied, "registry_unauthorized"
		e.Message = fmt.Sprintf("unauthorized: the registry %s wants credentials for %s (some say so of what does not exist)%s", from, what, words)
	case s == http.StatusUnauthorized:
		e.Kind, e.Code = api.Denied, "registry_unauthorized"
		e.Message = fmt.Sprintf("unauthorized: the registry %s does not accept the credentials for %s%s", from, what, words)
	case s == http.StatusForbidden:
		e.Kind, e.Code = api.Denied, "registry_forbidden"
		e.Message = fmt.Sprintf("forbidden: the registry %s does not give %s to these credentials%s", from, what, words)
	case s == http.StatusNotFound:
		e.Kind, e.Code = api.NotFound, "image_not_found"
		e.Message = fmt.Sprintf("not found: the registry %s has no %s%s", from, what, words)
	case s == http.StatusTooManyRequests:
		e.Kind, e.Code, e.RetryAfter = api.RateLimited, "rate_limited", retryAfter(resp, time.Now())
		e.Message = fmt.Sprintf("rate limited: the registry %s was asked too often; %s%s", from, when(e.RetryAfter, time.Now()), words)
	case s >= 500 || s == http.StatusRequestTimeout:
		e.Kind, e.Code = api.Unavailable, "registry_unavailable"
		e.Message = fmt.Sprintf("the registry %s answered %d %s%s", from, s, http.StatusText(s), words)
		e.NoRetry = false
		return temporary{e}
	default:
		e.Kind, e.Code = api.Invalid, "registry_refused"
		e.Message = fmt.Sprintf("the registry %s answered %d %s when asked for %s%s", from, s, http.StatusText(s), what, words)
	}
	return e
}

// said is what the registry's answer says in words, ready to be put behind ours.
func said(resp *http.Response) string {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // half a reason is as good as none
	var body struct {
		Errors  []struct{ Code, Message string }
		Details string // of a token service
	}
	var words []string
	if json.Unmarshal(b, &body) == nil {
		for _, e := range body.Errors {
			if text := printable(e.Message, 200); text != "" {
				words = append(words, text)
			} else if text := printable(e.Code, 60); text != "" {
				words = append(words, text)
			}
			if len(words) == 3 {
				break
			}
		}
		if text := printable(body.Details, 200); text != "" && len(words) == 0 {
			words = append(words, text)
		}
	} else if kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); kind == "text/plain" {
		if text := printable(string(b), 200); text != "" {
			words = append(words, text)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return fmt.Sprintf(": %q", strings.Join(words, "; "))
}

// printable is a registry's text without what a terminal or a log might obey.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// maxRetryAfter bounds how long a registry can tell us to stay away.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads Retry-After, seconds or a date (RFC 9110, 10.2.3); 0 where there is none that can be read.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	h := resp.Header.Get("Retry-After")
	d := time.Duration(0)
	if n, err := strconv.ParseUint(h, 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(h); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// when says in words when to come again.
func when(after time.Duration, now time.Time) string {
	if after <= 0 {
		return "it did not say when to try again"
	}
	after = max(after.Round(time.Second), time.Second)
	return fmt.Sprintf("try again in %s (at %s)", after, now.Add(after).UTC().Format("15:04:05 UTC"))
}

// unreachable says why a host did not answer, unless the context ended: that is its cause.
func unreachable(ctx context.Context, host string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	e := &api.Error{Kind: api.Unavailable, Code: "registry_unavailable"}
	cert, badCert := errors.AsType[*tls.CertificateVerificationError](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case badCert:
		e.Message, e.NoRetry = fmt.Sprintf("the registry %s cannot be trusted: %v", host, cert.Err), true
		return e
	case isDNS && dns.IsNotFound:
		e.Message, e.NoRetry = fmt.Sprintf("the registry %s cannot be reached: there is no host of that name", host), true
		return e
	case errors.Is(err, errLedHere), errors.Is(err, errNotLoopback):
		return refused("%s is not asked: %s", host, printable(err.Error(), 300))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Message = fmt.Sprintf("the registry %s broke off the connection", host)
	default:
		e.Message = fmt.Sprintf("the registry %s cannot be reached: %s", host, printable(err.Error(), 300))
	}
	return temporary{e}
}

func invalid(format string, args ...any) error {
	return &api.Error{Kind: api.Invalid, Code: "invalid_image", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

func refused(format string, args ...any) error {
	return &api.Error{Kind: api.Invalid, Code: "registry_refused", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

func quoteHost(h string) string { return printable(h, 200) }
