package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
)

const blob = "what is in the blob"

var digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(blob)))

// A world is some hosts, which remember what authorized each request.
type world struct {
	t     *testing.T
	hosts map[string]*httptest.Server
	mu    sync.Mutex
	seen  []string // "HOST PATH AUTHORIZATION"
}

func newWorld(t *testing.T) *world { return &world{t: t, hosts: map[string]*httptest.Server{}} }

// host has a handler answer at an address, in plain HTTP, or with TLS where it is elsewhere than on this host.
func (w *world) host(addr string, h http.HandlerFunc) {
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen = append(w.seen, strings.TrimSpace(addr+" "+r.URL.Path+" "+r.Header.Get("Authorization")))
		w.mu.Unlock()
		h(rw, r)
	})
	srv := httptest.NewUnstartedServer(handler)
	if isLoopback(addr) {
		srv.Start()
	} else {
		srv.StartTLS()
	}
	w.t.Cleanup(srv.Close)
	w.hosts[addr] = srv
}

func (w *world) client() *Client {
	c := New(Config{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		srv := w.hosts[strings.TrimSuffix(addr, ":443")]
		if srv == nil {
			return nil, &net.OpError{Op: "dial", Err: errors.New("nobody is at " + addr)}
		}
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}})
	for _, srv := range w.hosts {
		if srv.TLS == nil {
			continue
		}
		// What a test's server calls itself is not the name that it is asked for under.
		config := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		config.ServerName = "example.com"
		for _, t := range []*http.Transport{c.named, c.further} {
			t.TLSClientConfig = config
		}
	}
	w.t.Cleanup(c.Close)
	return c
}

func (w *world) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// fetch reads the blob.
func fetch(t *testing.T, r *Repository) (string, error) {
	t.Helper()
	body, _, err := r.Blob(t.Context(), digest, 0, int64(len(blob)))
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return string(b), err
}

func refuses(t *testing.T, err error, code, says string) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != code || !strings.Contains(e.Message, says) {
		t.Errorf("%v (%T), where %s that says %q is expected", err, err, code, says)
	}
}

// The token flow: the registry names a service, which gives a token for this repository; that the registry takes.
func TestTokens(t *testing.T) {
	const registry, service = "registry.example", "auth.example"
	for name, tc := range map[string]struct {
		auth   Auth
		realm  string
		answer string // of the service
		code   string // "": it works
		says   string
		asks   []string // who was asked, with what
	}{
		"anonymous": {answer: `{"token":"t1"}`, asks: []string{registry + " BLOB", service + " /token", registry + " BLOB Bearer t1"}},
		"password":  {auth: Auth{Username: "me", Password: "pw"}, answer: `{"token":"t1"}`, asks: []string{registry + " BLOB", service + " /token " + basic("me", "pw"), registry + " BLOB Bearer t1"}},
		"access":    {answer: `{"access_token":"t1"}`, asks: []string{registry + " BLOB", service + " /token", registry + " BLOB Bearer t1"}},
		"identity":  {auth: Auth{IdentityToken: "id"}, answer: `{"access_token":"t1"}`, asks: []string{registry + " BLOB", service + " /token", registry + " BLOB Bearer t1"}},
		"given":     {auth: Auth{RegistryToken: "t1"}, asks: []string{registry + " BLOB Bearer t1"}},
		"given bad": {auth: Auth{RegistryToken: "t2"}, code: "registry_unauthorized", says: "does not accept", asks: []string{registry + " BLOB Bearer t2"}},
		"not enough": {answer: `{"token":"t2"}`, code: "registry_unauthorized", says: "unauthorized: the registry registry.example wants credentials",
			asks: []string{registry + " BLOB", service + " /token", registry + " BLOB Bearer t2"}},
		"no token":    {answer: `{}`, code: "registry_refused", says: "something else than a token"},
		"not JSON":    {answer: `<html>`, code: "registry_refused", says: "something else than a token"},
		"two headers": {answer: `{"token":"t1\r\nX: y"}`, code: "registry_refused", says: "something else than a token"},
		"huge":        {answer: `{"token":"` + strings.Repeat("x", maxTokenBody) + `"}`, code: "registry_refused", says: "something else than a token"},
		"refused":     {auth: Auth{Username: "me", Password: "wrong"}, answer: "401", code: "registry_unauthorized", says: "does not accept the credentials for a token for team/app"},
		"limited":     {answer: "429", code: "rate_limited", says: "try again in 7s"},
		"broken":      {answer: "500", code: "registry_unavailable", says: "500"},
		"moved":       {answer: "302", code: "registry_refused", says: "redirects more than 5 times"},
		"plain realm": {realm: "http://auth.example/token", code: "registry_refused", says: "only HTTPS"},
		"realm here":  {realm: "https://127.0.0.1:6000/token", code: "registry_refused", says: "on this host, which is not asked"},
		"file realm":  {realm: "file:///etc/passwd", code: "registry_refused", says: "none"},
		"no realm":    {realm: "-", code: "registry_refused", says: "none"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			realm := tc.realm
			if realm == "" {
				realm = "https://" + service + "/token?a=b"
			}
			w.host(registry, func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "Bearer t1" {
					io.WriteString(rw, blob)
					return
				}
				rw.Header().Add("WWW-Authenticate", "Negotiate")
				rw.Header().Add("WWW-Authenticate", `bearer realm="`+realm+`",service="the \"registry\"", scope="repository:team/app:pull,push"`)
				rw.WriteHeader(401)
			})
			var got url.Values
			w.host(service, func(rw http.ResponseWriter, r *http.Request) {
				r.ParseForm()
				got = r.Form
				switch tc.answer {
				case "401", "500":
					rw.WriteHeader(map[string]int{"401": 401, "500": 500}[tc.answer])
				case "429":
					rw.Header().Set("Retry-After", "7")
					rw.WriteHeader(429)
				case "302":
					http.Redirect(rw, r, "/token", http.StatusFound)
				default:
					io.WriteString(rw, tc.answer)
				}
			})
			alive := 0
			r := w.client().Repository(registry, "team/app", tc.auth, func(int) { alive++ })
			text, err := fetch(t, r)
			if tc.code != "" {
				refuses(t, err, tc.code, tc.says)
			} else if err != nil || text != blob || alive == 0 {
				t.Errorf("%q, %v, %d signs of life", text, err, alive)
			}
			for i, want := range tc.asks {
				want = strings.Replace(want, " BLOB", " /v2/team/app/blobs/"+digest, 1)
				if asked := w.asked(); len(asked) != len(tc.asks) || asked[i] != want {
					t.Errorf("asked %q; want %q", asked, want)
				}
			}
			if len(tc.asks) == 3 {
				want := url.Values{"service": {`the "registry"`}, "scope": {"repository:team/app:pull"}, "a": {"b"}}
				if tc.auth.IdentityToken != "" {
					want.Set("grant_type", "refresh_token")
					want.Set("refresh_token", "id")
					want.Set("client_id", "hale")
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("the service was asked %v; want %v", got, want)
				}
			}
		})
	}
}

// A token that expires half-way is renewed once for each request.
func TestTokenExpires(t *testing.T) {
	w := newWorld(t)
	tokens, good := 0, ""
	w.host("localhost:5000", func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			tokens++
			good = fmt.Sprint("t", tokens)
			fmt.Fprintf(rw, `{"token":%q}`, good)
			return
		}
		if good == "" || r.Header.Get("Authorization") != "Bearer "+good {
			rw.Header().Set("WWW-Authenticate", `Bearer realm="http://localhost:5000/token"`)
			rw.WriteHeader(401)
			return
		}
		good = ""
		io.WriteString(rw, blob)
	})
	r := w.client().Repository("localhost:5000", "app", Auth{}, nil)
	for range 3 {
		if text, err := fetch(t, r); err != nil || text != blob {
			t.Errorf("%q, %v", text, err)
		}
	}
	if tokens != 3 {
		t.Errorf("%d tokens", tokens)
	}
}

func TestBasic(t *testing.T) {
	w := newWorld(t)
	w.host("registry.example", func(rw http.ResponseWriter, r *http.Request) {
		if user, pw, _ := r.BasicAuth(); user == "me" && pw == "pw" {
			io.WriteString(rw, blob)
			return
		}
		rw.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		rw.WriteHeader(401)
	})
	c := w.client()
	if text, err := fetch(t, c.Repository("registry.example", "app", Auth{Username: "me", Password: "pw"}, nil)); err != nil || text != blob {
		t.Errorf("%q, %v", text, err)
	}
	if asked := w.asked(); len(asked) != 2 || strings.Contains(asked[0], "Basic") {
		t.Errorf("credentials go out before they are asked for: %q", asked)
	}
	_, err := fetch(t, c.Repository("registry.example", "app", Auth{Username: "me", Password: "no"}, nil))
	refuses(t, err, "registry_unauthorized", "does not accept")
	_, err = fetch(t, c.Repository("registry.example", "app", Auth{}, nil))
	refuses(t, err, "registry_unauthorized", "wants credentials")
}

// Redirects are followed without what authorized the request, unless they stay where they are; and not to this host.
func TestRedirects(t *testing.T) {
	const registry = "registry.example"
	for name, tc := range map[string]struct {
		to, at string
		code   string
		says   string
		with   bool // the authorization
	}{
		"another host": {to: "https://storage.example/data?sig=x", at: "storage.example"},
		"a subdomain":  {to: "https://cdn.registry.example/data", at: "cdn.registry.example"},
		"another port": {to: "https://registry.example:8443/data", at: "registry.example:8443"},
		"the same":     {to: "/data", at: registry, with: true},
		"with a user":  {to: "https://u:p@storage.example/data", at: "storage.example"},
		"plain":        {to: "http://storage.example/data", code: "registry_refused", says: "only HTTPS is followed"},
		"plain, back":  {to: "http://registry.example/data", code: "registry_refused", says: "loopback only"},
		"to loopback":  {to: "http://127.0.0.1:80/data", code: "registry_refused", says: "only HTTPS is followed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			data := func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, blob) }
			w.host(registry, func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/data" {
					data(rw, r)
					return
				}
				rw.Header().Set("Location", tc.to)
				rw.WriteHeader(307)
			})
			if tc.at != "" && tc.at != registry {
				w.host(tc.at, data)
			}
			text, err := fetch(t, w.client().Repository(registry, "app", Auth{RegistryToken: "secret"}, nil))
			if tc.code != "" {
				refuses(t, err, tc.code, tc.says)
			} else if err != nil || text != blob {
				t.Fatalf("%q, %v", text, err)
			}
			asked := w.asked()
			if last := asked[len(asked)-1]; len(asked) == 2 && strings.HasSuffix(last, "Bearer secret") != tc.with {
				t.Errorf("asked %q", asked)
			}
		})
	}
	if onlyLoopback("tcp", "198.51.100.1:80", nil) == nil || onlyLoopback("tcp", "127.0.0.1:80", nil) != nil {
		t.Error("plain HTTP leaves this host")
	}
}

// Where a registry elsewhere cannot lead us. A host without a route to what it may lead to says so, and not that it is led here.
func TestNotHere(t *testing.T) {
	here := []string{
		"127.0.0.1:443", "127.9.9.9:443", "[::1]:443", "0.0.0.0:1", "0.1.2.3:443", "[::]:1", "[::ffff:127.0.0.1]:1", "[::127.0.0.1]:1", "x",
		"169.254.169.254:80", "[fe80::1]:443", "[fe80::1%lo]:443", "224.0.0.1:443", "[ff02::1]:443", "255.255.255.255:1",
		"100.100.100.200:80", "168.63.129.16:80", "192.0.0.192:80", "[fd00:ec2::254]:80", "[fd20:ce::254]:80",
		"[64:ff9b::a9fe:a9fe]:80", "[64:ff9b::7f00:1]:443", "[64:ff9b:1::a9fe:a9fe]:80", "[2002:a9fe:a9fe::1]:80",
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		ip, _, err := net.ParseCIDR(a.String())
		if err != nil {
			t.Fatal(err)
		}
		here = append(here, net.JoinHostPort(ip.String(), "443"))
		if ip4 := ip.To4(); ip4 != nil {
			here = append(here, fmt.Sprintf("[64:ff9b::%x:%x]:443", uint16(ip4[0])<<8|uint16(ip4[1]), uint16(ip4[2])<<8|uint16(ip4[3])))
		}
	}
	for _, address := range here {
		if err := notHere("tcp", address, nil); !errors.Is(err, errLedHere) {
			t.Errorf("a redirect to %s: %v", address, err)
		}
	}
	for _, address := range []string{"198.51.100.1:443", "10.255.3.1:443", "172.31.255.1:443", "192.168.255.77:443", "[2001:db8::1]:443", "[64:ff9b::c633:6401]:443", "[fd12:3456::1]:443"} {
		if err := notHere("tcp", address, nil); errors.Is(err, errLedHere) {
			t.Errorf("a redirect to %s: %v", address, err)
		}
	}
	for address, want := range map[string]byte{"127.0.0.1": unix.RTN_LOCAL, "127.1.2.3": unix.RTN_LOCAL} {
		if kind, err := route(netip.MustParseAddr(address)); err != nil || kind != want {
			t.Errorf("the route to %s is %d, %v; want %d", address, kind, err, want)
		}
	}
}

// A 401 of somebody to whom the registry led asks for nothing of ours.
func TestNobodyElseIsLoggedInTo(t *testing.T) {
	w := newWorld(t)
	w.host("registry.example", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://evil.example/x", http.StatusFound)
	})
	w.host("evil.example", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("WWW-Authenticate", `Basic realm="give"`)
		rw.WriteHeader(401)
	})
	_, err := fetch(t, w.client().Repository("registry.example", "app", Auth{Username: "me", Password: "pw"}, nil))
	refuses(t, err, "registry_unauthorized", "evil.example, where the registry registry.example sent us")
	if asked := w.asked(); len(asked) != 2 {
		t.Errorf("asked %q", asked)
	}
}

// far is a connection to somewhere else, by its own word.
type far struct{ net.Conn }

func (far) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 443} }

// A token service whose name leads to this host is asked only where the registry is here itself, by whatever name; a redirect that leads
// here is not followed. No other try changes that.
func TestNamesThatLeadHere(t *testing.T) {
	for name, tc := range map[string]struct {
		redirect, here bool
		works          bool
	}{
		"a token service":                    {},
		"a token service of a registry here": {here: true, works: true},
		"a redirect":                         {redirect: true},
		"a redirect of a registry here":      {redirect: true, here: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.host("registry.example", func(rw http.ResponseWriter, r *http.Request) {
				switch {
				case r.Header.Get("Authorization") == "Bearer t1":
					io.WriteString(rw, blob)
				case tc.redirect:
					http.Redirect(rw, r, "https://inside.example/data", http.StatusFound)
				default:
					rw.Header().Set("WWW-Authenticate", `Bearer realm="https://inside.example/token"`)
					rw.WriteHeader(401)
				}
			})
			w.host("inside.example", func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, `{"token":"t1"}`) })
			c := w.client()
			dial := c.named.DialContext
			c.named.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				if err == nil && !tc.here {
					conn = far{conn}
				}
				return conn, err
			}
			c.further.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				to := w.hosts[strings.TrimSuffix(addr, ":443")].Listener.Addr().String()
				return (&net.Dialer{Control: notHere}).DialContext(ctx, network, to)
			}
			text, err := fetch(t, c.Repository("registry.example", "app", Auth{Username: "me", Password: "pw"}, nil))
			if tc.works {
				if err != nil || text != blob {
					t.Errorf("%q, %v", text, err)
				}
				return
			}
			refuses(t, err, "registry_refused", "inside.example is not asked")
			if asked := w.asked(); len(asked) != 1 || Temporary(err) {
				t.Errorf("asked %q; it may pass: %v", asked, Temporary(err))
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	_, err := c.Repository("registry.example", "app", Auth{}, nil).Manifest(t.Context(), "v1", 100)
	refuses(t, err, "registry_unavailable", "registry.example cannot be reached: dial: nobody is at")
	if !Temporary(err) {
		t.Errorf("%v may not pass", err)
	}
	w.host("other.example", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err = w.client().Repository("other.example", "app", Auth{}, nil).Manifest(t.Context(), "v1", 100)
	if refuses(t, err, "registry_unavailable", "other.example"); !Temporary(err) {
		t.Errorf("%v may not pass", err)
	}
	// A certificate that nobody vouches for.
	bare := New(Config{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, w.hosts["other.example"].Listener.Addr().String())
	}})
	defer bare.Close()
	_, err = bare.Repository("other.example", "app", Auth{}, nil).Manifest(t.Context(), "v1", 100)
	if refuses(t, err, "registry_unavailable", "cannot be trusted"); Temporary(err) {
		t.Errorf("%v may pass", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the reason"))
	if _, err := c.Repository("registry.example", "app", Auth{}, nil).Manifest(ctx, "v1", 100); err == nil || err.Error() != "the reason" {
		t.Error(err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"": 0, "0": 0, "-1": 0, "soon": 0, "37": 37 * time.Second, "99999999": maxRetryAfter, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {h}}}, now); got != want {
			t.Errorf("%q is %s, want %s", h, got, want)
		}
	}
	if got := when(90*time.Second, now); got != "try again in 1m30s (at 03:05:35 UTC)" {
		t.Error(got)
	}
}

func TestParseChallenges(t *testing.T) {
	for h, want := range map[string][]challenge{
		``: nil,
		`Bearer realm="https://a/b?c=d,e",service=x , scope = "a b"`: {{"bearer", map[string]string{"realm": "https://a/b?c=d,e", "service": "x", "scope": "a b"}}},
		`Basic realm="x", Bearer realm="y"`:                          {{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y"}}},
		`Negotiate, Basic realm="a\"b"`:                              {{"negotiate", map[string]string{}}, {"basic", map[string]string{"realm": `a"b`}}},
		`Bearer realm="open`:                                         {{"bearer", map[string]string{}}, {"realm", map[string]string{}}},
	} {
		if got := parseChallenges([]string{h}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", h, got, want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="x",scope="repository:a:pull"`)
	f.Add(`Negotiate, Basic realm="a\"b", =`)
	f.Fuzz(func(t *testing.T, h string) {
		all := parseChallenges([]string{h, h})
		if len(all) > 8 {
			t.Errorf("%d challenges", len(all))
		}
		for _, c := range all {
			if c.scheme == "" || len(c.params) > 16 {
				t.Errorf("%+v", c)
			}
		}
		if from, total, ok := contentRange(h); ok && (from < 0 || total < -1) {
			t.Errorf("%d of %d", from, total)
		}
		printable(h, 10)
	})
}

// What docker login and its like write down.
func TestDockerConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	write := func(text string) DockerConfig {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return DockerConfig{Path: path}
	}
	auth := base64.StdEncoding.EncodeToString([]byte("me:p:w"))
	c := write(`{"auths":{
		"https://index.docker.io/v1/":{"auth":"` + auth + `"},
		"registry.example":{"username":"u","password":"p"},
		"registry.example/team":{"username":"t","password":"p"},
		"registry.example/team/app":{"identitytoken":"id"},
		"https://old.example/v2/":{"registrytoken":"rt"},
		"bad.example":{"auth":"!"}},"credsStore":"absent","credHelpers":{"helped.example":"absent"}}`)
	for at, want := range map[string]Auth{
		"index.docker.io library/nginx": {Username: "me", Password: "p:w"},
		"docker.io library/nginx":       {Username: "me", Password: "p:w"},
		"registry.example other":        {Username: "u", Password: "p"},
		"registry.example team":         {Username: "t", Password: "p"},
		"registry.example teamwork":     {Username: "u", Password: "p"},
		"registry.example team/x":       {Username: "t", Password: "p"},
		"registry.example team/app":     {IdentityToken: "id"},
		"old.example x":                 {RegistryToken: "rt"},
		"registry.example:5000 x":       {},
		"helped.example x":              {}, // no helper runs unless asked for
	} {
		host, repository, _ := strings.Cut(at, " ")
		if got, err := c.Find(t.Context(), host, repository); err != nil || got != want {
			t.Errorf("%s: %#v, %v", at, got, err)
		}
	}
	if _, err := c.Find(t.Context(), "bad.example", "x"); err == nil || !strings.Contains(err.Error(), "not the base64") {
		t.Error(err)
	}
	if _, err := write(`{"auths":{"x":"secret"`).Find(t.Context(), "x", "x"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	for _, none := range []DockerConfig{{}, {Path: filepath.Join(dir, "absent")}} {
		if got, err := none.Find(t.Context(), "x", "x"); err != nil || !got.empty() {
			t.Errorf("%#v, %v", got, err)
		}
	}
	if got := fmt.Sprintf("%v %+v %#v %s", Auth{Password: "secret"}, Auth{Password: "secret"}, Auth{Password: "secret"}, Auth{Password: "secret"}); strings.Contains(got, "secret") {
		t.Error(got)
	}
}

// Credential helpers run when they are asked for, are told the registry's name, and are not waited for in vain.
func TestCredentialHelpers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/bin:/usr/bin")
	helper := func(name, script string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	helper("good", `read server; echo "{\"Username\":\"$1\",\"Secret\":\"$server\"}"`)
	helper("id", `echo '{"Username":"<token>","Secret":"id"}'`)
	helper("none", `echo "credentials not found in native keychain"; exit 1`)
	helper("broken", `echo "my secret"; exit 3`)
	path := filepath.Join(dir, "config.json")
	text := `{"auths":{"none.example":{"username":"u","password":"p"}},"credsStore":"good","credHelpers":{"id.example":"id","none.example":"none","broken.example":"broken","evil.example":"../x"}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DockerConfig{Path: path, Helpers: true}
	for host, want := range map[string]Auth{
		"any.example":  {Username: "get", Password: "any.example"},
		dockerHub:      {Username: "get", Password: "https://index.docker.io/v1/"},
		"id.example":   {IdentityToken: "id"},
		"none.example": {Username: "u", Password: "p"},
	} {
		if got, err := c.Find(t.Context(), host, "x"); err != nil || got != want {
			t.Errorf("%s: %q %q %q, %v", host, got.Username, got.Password, got.IdentityToken, err)
		}
	}
	for host, says := range map[string]string{"broken.example": "exit status 3", "evil.example": "no name of one"} {
		if _, err := c.Find(t.Context(), host, "x"); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", host, err)
		}
	}
	if got, err := (DockerConfig{Path: path}).Find(t.Context(), "any.example", "x"); err != nil || !got.empty() {
		t.Errorf("a helper ran that nobody asked for: %v, %v", got, err)
	}
}
