package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/halevm/hale/api"
)

// An Auth is what a registry wants to see; the zero value is nothing. It has no String and is never logged.
type Auth struct {
	Username, Password string
	IdentityToken      string // is exchanged for tokens (OAuth 2)
	RegistryToken      string // is the token
}

func (a Auth) empty() bool { return a == Auth{} }

// String hides what it holds.
func (a Auth) String() string {
	if a.empty() {
		return "no credentials"
	}
	return "credentials"
}

// GoString hides what it holds.
func (a Auth) GoString() string { return a.String() }

const (
	maxTokenBody = 64 << 10
	maxToken     = 32 << 10
)

// A session is how a registry wants to be spoken to, as far as it is known.
type session struct {
	mu     sync.Mutex
	scheme string
	basic  bool
	token  string
	here   bool // at an address of this host
}

func (s *session) howToSpeak() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scheme
}

func (s *session) speakPlainly() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scheme = "http"
}

func (s *session) isHere() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.here
}

func (s *session) speaksFrom(here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here = here
}

// authorize adds to a request for the registry itself what it is known to want.
func (r *Repository) authorize(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.token != "":
		req.Header.Set("Authorization", "Bearer "+r.token)
	case r.basic:
		req.SetBasicAuth(r.auth.Username, r.auth.Password)
	}
}

// logIn does what a 401 asks for, and reports whether that is worth another try.
func (r *Repository) logIn(ctx context.Context, challenges []string) (bool, error) {
	if r.auth.RegistryToken != "" {
		return false, nil // it was sent, and is not accepted
	}
	for _, c := range parseChallenges(challenges) {
		switch c.scheme {
		case "bearer":
			token, err := r.fetchToken(ctx, c.params)
			if err != nil {
				return false, err
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.token = token
			return true, nil
		case "basic":
			r.mu.Lock()
			defer r.mu.Unlock()
			tried := r.basic
			r.basic = r.auth.Username != ""
			return r.basic && !tried, nil
		}
	}
	return false, nil
}

// fetchToken asks the token service that the registry names for leave to pull from this repository, and for no more.
// (distribution: auth/token.md and auth/oauth.md)
func (r *Repository) fetchToken(ctx context.Context, params map[string]string) (string, error) {
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" {
		return "", refused("the registry %s names a token service that is none: %q", r.host, printable(params["realm"], 200))
	}
	if realm.Scheme != "https" && !(realm.Scheme == "http" && isLoopback(realm.Host) && isLoopback(r.host)) {
		return "", refused("the registry %s names the token service %s://%s; only HTTPS is used for one", r.host, printable(realm.Scheme, 20), quoteHost(realm.Host))
	}
	realm.User, realm.Fragment = nil, ""
	values := realm.Query()
	if service := params["service"]; service != "" {
		values.Set("service", service)
	}
	values.Set("scope", "repository:"+r.path+":pull")
	header, method, body := http.Header{}, http.MethodGet, ""
	if r.auth.IdentityToken != "" {
		values.Set("grant_type", "refresh_token")
		values.Set("refresh_token", r.auth.IdentityToken)
		values.Set("client_id", "hale")
		method, body = http.MethodPost, values.Encode()
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		realm.RawQuery = ""
	} else {
		realm.RawQuery = values.Encode()
		if r.auth.Username != "" {
			basic := &http.Request{Header: header}
			basic.SetBasicAuth(r.auth.Username, r.auth.Password)
		}
	}
	resp, err := r.token1(ctx, method, realm, header, body)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", r.refusal(resp, "a token for "+r.path)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenBody+1))
	if err != nil {
		return "", unreachable(ctx, quoteHost(realm.Host), err)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if len(raw) > maxTokenBody || json.Unmarshal(raw, &answer) != nil {
		return "", refused("the token service %s answered with something else than a token", quoteHost(realm.Host))
	}
	token := answer.Token
	if token == "" {
		token = answer.AccessToken
	}
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", refused("the token service %s answered with something else than a token", quoteHost(realm.Host))
	}
	return token, nil
}

// token1 asks a token service. It is another host than the registry, and gets nothing that was meant for that. Whoever is not on this
// host does not have one here either; one that is, under a name of its own, may have both.
func (r *Repository) token1(ctx context.Context, method string, realm *url.URL, header http.Header, body string) (*http.Response, error) {
	service := &Repository{c: r.c, host: realm.Host, path: r.path, auth: r.auth, alive: r.alive}
	service.led = realm.Host != r.host && !isLoopback(r.host) && !r.isHere()
	if isLoopback(realm.Host) && !isLoopback(r.host) {
		return nil, &api.Error{Kind: api.Invalid, Code: "registry_refused", NoRetry: true, Message: "the registry " + r.host + " names a token service on this host, which is not asked"}
	}
	return service.follow(ctx, method, realm, header, body)
}

// A challenge is one way to log in that a 401 names.
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// parseChallenges reads WWW-Authenticate (RFC 9110, 11.6.1), as far as it makes sense: one challenge to a header, or
// several with commas between them.
func parseChallenges(headers []string) []challenge {
	var all []challenge
	for _, h := range headers {
		for len(all) < 8 {
			h = strings.TrimLeft(h, " \t,")
			scheme, rest := word(h)
			if scheme == "" {
				break
			}
			c := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
			h = rest
			for len(c.params) < 16 {
				key, value, rest, ok := param(h)
				if !ok {
					break
				}
				c.params[strings.ToLower(key)] = value
				h = rest
			}
			all = append(all, c)
		}
	}
	return all
}

// word cuts a token (RFC 9110, 5.6.2) off.
func word(s string) (string, string) {
	n := strings.IndexFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
	if n < 0 {
		n = len(s)
	}
	return s[:n], s[n:]
}

// param cuts key=value or key="value" off, with the comma before it.
func param(s string) (key, value, rest string, ok bool) {
	key, rest = word(strings.TrimLeft(s, " \t,"))
	rest = strings.TrimLeft(rest, " \t")
	if key == "" || !strings.HasPrefix(rest, "=") {
		return "", "", s, false
	}
	rest = strings.TrimLeft(rest[1:], " \t")
	if !strings.HasPrefix(rest, `"`) {
		value, rest = word(rest)
		return key, value, rest, true
	}
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			return key, b.String(), rest[i+1:], true
		case '\\':
			if i++; i == len(rest) {
				return "", "", s, false
			}
		}
		b.WriteByte(rest[i])
	}
	return "", "", s, false
}
