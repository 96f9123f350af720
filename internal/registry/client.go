package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Bounds of what a registry may do.
const (
	maxRedirects = 5
	maxHeader    = 64 << 10 // bytes of an answer's header
	dialTime     = 15 * time.Second
	headerTime   = 90 * time.Second // from the request to the answer's header; who asks may have less patience
)

// A Config is what a Client may be told; the zero value is useful.
type Config struct {
	UserAgent string
	// Dial connects instead of the network, without what is refused to whom a registry sends us.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// A Client holds the connections to registries.
type Client struct {
	agent   string
	named   *http.Transport // to a registry that a person named
	local   *http.Transport // in plain HTTP, to loopback
	further *http.Transport // to where a registry sent us
}

// New returns a client.
func New(c Config) *Client {
	if c.UserAgent == "" {
		c.UserAgent = "hale"
	}
	transport := func(control func(network, address string, _ syscall.RawConn) error) *http.Transport {
		t := &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTime, Control: control}).DialContext,
			TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: headerTime, MaxResponseHeaderBytes: maxHeader,
			IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 8, ForceAttemptHTTP2: true,
			DisableCompression: true, // lengths and digests are of what is stored
		}
		if c.Dial != nil {
			t.DialContext = c.Dial
		}
		return t
	}
	client := &Client{agent: c.UserAgent, named: transport(nil), local: transport(onlyLoopback), further: transport(notHere)}
	client.local.Proxy = nil
	return client
}

// Close lets go of idle connections.
func (c *Client) Close() {
	for _, t := range []*http.Transport{c.named, c.local, c.further} {
		t.CloseIdleConnections()
	}
}

func addressOf(address string) netip.Addr {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

var (
	errNotLoopback = errors.New("plain HTTP is spoken to loopback only, and the name leads elsewhere")
	errLedHere     = errors.New("a registry elsewhere leads to this host or its own link, which is not followed")
)

func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if a := addressOf(address); !a.IsLoopback() {
		return errNotLoopback
	}
	return nil
}

// isLoopback reports whether a host, perhaps with a port, is this one by its name.
func isLoopback(host string) bool {
	u := url.URL{Host: host}
	name := strings.ToLower(u.Hostname())
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.Unmap().IsLoopback()
}

// A Repository is one repository of a registry, for as long as one pull lasts: it remembers how the registry wants to be spoken to.
type Repository struct {
	c     *Client
	host  string
	path  string
	auth  Auth
	alive func(n int) // told of every answer, and of every byte
	led   bool        // it is a token service, and a registry elsewhere leads there

	session
}

// Repository returns the repository path of the registry host. alive is told of every n bytes that come, 0 for an answer's
// header, from several goroutines; nil is nobody.
func (c *Client) Repository(host, path string, auth Auth, alive func(n int)) *Repository {
	if alive == nil {
		alive = func(int) {}
	}
	r := &Repository{c: c, host: host, path: path, auth: auth, alive: alive}
	r.scheme = "https"
	r.token = auth.RegistryToken
	return r
}

// get asks for a path below the repository, and returns the answer that came in the end, whatever its status.
func (r *Repository) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	for loggedIn := false; ; loggedIn = true {
		resp, err := r.ask(ctx, path, header)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized || loggedIn || resp.Request.URL.Host != r.host {
			return resp, nil
		}
		challenges := resp.Header.Values("WWW-Authenticate")
		worked, err := r.logIn(ctx, challenges)
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		if !worked {
			return resp, nil
		}
		resp.Body.Close()
	}
}

// ask is one request, in plain HTTP where TLS is not spoken on loopback.
func (r *Repository) ask(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	scheme := r.howToSpeak()
	resp, err := r.follow(ctx, http.MethodGet, &url.URL{Scheme: scheme, Host: r.host, Path: "/v2/" + r.path + "/" + path}, header, "")
	if err == nil || scheme == "http" || !isLoopback(r.host) || ctx.Err() != nil {
		return resp, err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return nil, err
	}
	if _, ok := errors.AsType[*noTLS](err); !ok {
		return nil, err
	}
	r.speakPlainly()
	return r.ask(ctx, path, header)
}

// noTLS is a host that could be reached and does not speak TLS.
type noTLS struct{ error }

func (n *noTLS) Unwrap() error { return n.error }

// follow sends a request, and follows a few redirects. What authorizes it goes to the first host only, and a body never
// further than that.
func (r *Repository) follow(ctx context.Context, method string, u *url.URL, header http.Header, body string) (*http.Response, error) {
	first := u
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(body))
		if err != nil {
			return nil, refused("the registry %s leads to an address that cannot be asked: %s", r.host, printable(err.Error(), 200))
		}
		if body == "" {
			req.Body, req.GetBody, req.ContentLength = nil, nil, 0
		}
		for name, values := range header {
			if name != "Authorization" {
				req.Header[name] = values
			}
		}
		req.Header.Set("User-Agent", r.c.agent)
		if sameOrigin(u, first) {
			if len(header["Authorization"]) > 0 {
				req.Header["Authorization"] = header["Authorization"]
			} else if u.Host == r.host {
				r.authorize(req)
			}
		}
		transport, err := r.transport(req)
		if err != nil {
			return nil, err
		}
		resp, err := transport.RoundTrip(r.traced(req, transport))
		if err != nil {
			failed := unreachable(ctx, quoteHost(u.Host), err)
			if _, notTLS := errors.AsType[tls.RecordHeaderError](err); notTLS || errors.Is(err, http.ErrSchemeMismatch) {
				failed = refused("the registry %s does not speak TLS, and plain HTTP is spoken to loopback only", quoteHost(u.Host))
			}
			if u.Scheme == "https" && isLoopback(u.Host) && !isDial(err) {
				return nil, &noTLS{failed}
			}
			return nil, failed
		}
		r.alive(0)
		next, err := resp.Location()
		if !redirects(resp.StatusCode) || errors.Is(err, http.ErrNoLocation) {
			return resp, nil
		}
		resp.Body.Close()
		switch {
		case err != nil:
			return nil, refused("the registry %s leads to an address that cannot be read: %s", r.host, printable(err.Error(), 200))
		case hop == maxRedirects:
			return nil, refused("the registry %s redirects more than %d times", r.host, maxRedirects)
		case method != http.MethodGet:
			return nil, refused("the token service %s redirects what holds credentials, which is not followed", quoteHost(u.Host))
		}
		next.User, next.Fragment = nil, ""
		u = next
	}
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

// transport says by which way a request may go, if at all.
func (r *Repository) transport(req *http.Request) (*http.Transport, error) {
	host := req.URL.Host
	own := isLoopback(r.host)
	switch {
	case req.URL.Scheme == "http" && isLoopback(host) && own:
		return r.c.local, nil
	case req.URL.Scheme == "http" && host == r.host:
		return nil, refused("plain HTTP is spoken to registries on loopback only, and %s is not there", quoteHost(host))
	case req.URL.Scheme != "https":
		return nil, refused("the registry %s leads to %s://%s; only HTTPS is followed", r.host, printable(req.URL.Scheme, 20), quoteHost(host))
	case host == r.host && !r.led, own: // a registry on this host may lead to others on this host
		return r.c.named, nil
	}
	// Through a proxy it is the proxy's matter whom it reaches.
	if p, err := r.c.named.Proxy(req); err == nil && p != nil {
		return r.c.named, nil
	}
	return r.c.further, nil
}

// traced has a request for the registry itself tell whether that is on this host, by whatever name. Where a proxy is says nothing.
func (r *Repository) traced(req *http.Request, way *http.Transport) *http.Request {
	if way != r.c.named || req.URL.Host != r.host {
		return req
	}
	if p, err := way.Proxy(req); err != nil || p != nil {
		return req
	}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		r.speaksFrom(isOwn(addressOf(i.Conn.RemoteAddr().String())))
	}}))
}

func (r *Repository) String() string { return fmt.Sprintf("%s/%s", r.host, r.path) }
