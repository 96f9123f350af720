package hale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/halevm/hale/api"
)

// A Client calls one server. The zero value is not usable; see New.
type Client struct {
	base      *url.URL // without a slash at its end
	token     string
	userAgent string
	http      *http.Client
}

// An Option changes a Client that is being made.
type Option func(*Client)

// WithTransport makes the client send its requests through rt. Redirects are never followed, whatever rt does.
func WithTransport(rt http.RoundTripper) Option {
	return func(c *Client) { c.http.Transport = rt }
}

// WithUserAgent names the program to the server; "hale-go" unless told.
func WithUserAgent(s string) Option { return func(c *Client) { c.userAgent = s } }

// answerTimeout is the longest time from the end of a request to the head of its answer. A stop waits for the program's
// grace period, which is the longest that the server takes before it says anything.
const answerTimeout = 5 * time.Minute

// New returns a client of the server at baseURL ("http://127.0.0.1:4973"). An empty token sends none, which is enough for
// Health only. An error is of kind api.Invalid.
func New(baseURL, token string, options ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("the server's address is no URL, want http://HOST:PORT or https://HOST:PORT: %w", api.Invalid)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("the server's address %q: want http://HOST:PORT or https://HOST:PORT: %w", u.Redacted(), api.Invalid)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("the token holds white space or other characters that no token has: %w", api.Invalid)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerTimeout
	transport.ExpectContinueTimeout = 2 * time.Second
	c := &Client{base: u, token: token, userAgent: "hale-go", http: &http.Client{
		Transport: transport,
		// A token goes to the server it was given for, and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// URL is the server's address.
func (c *Client) URL() string { return c.base.String() }

// do sends a request and returns its answer if that is one of success. The caller closes the body.
func (c *Client) do(req *http.Request, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(req.Context(), err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer resp.Body.Close()
		return nil, errorOf(resp)
	}
	return resp, nil
}

// transportError is why there was no whole answer: the caller's context, or the server's silence.
func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // it says method and address, as UnreachableError does
	}
	return &UnreachableError{URL: c.URL(), Err: err}
}

// send sends a request whose answer has no body that matters.
func (c *Client) send(req *http.Request, err error) error {
	resp, err := c.do(req, err)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	return nil
}

// maxAnswer bounds what is read of an answer that is no stream, in bytes.
const maxAnswer = 64 << 20

// call sends a request and decodes its answer. White space before the object is skipped, however long it goes on.
func call[T any](c *Client, req *http.Request, err error) (T, error) {
	var answer T
	resp, err := c.do(req, err)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	body := &bodyReader{r: io.LimitReader(resp.Body, maxAnswer)}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		if body.err != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = c.transportError(req.Context(), fmt.Errorf("the answer ended early: %w", err))
		} else {
			err = fmt.Errorf("%s %s: the answer is not what the API says: %w", req.Method, req.URL.Path, err)
		}
		var zero T
		return zero, err
	}
	return answer, nil
}

// bodyReader remembers whether its reader failed.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != io.EOF {
		b.err = err
	}
	return n, err
}
