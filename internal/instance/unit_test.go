package instance

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
)

func TestProcess(t *testing.T) {
	img := Image{Entrypoint: []string{"/entry"}, Cmd: []string{"image", "cmd"}, Env: []string{"A=1", "PATH=/x", "A=twice", "EMPTY"},
		WorkingDir: "/srv", User: "www", StopSignal: "SIGQUIT"}
	for _, tt := range []struct {
		name            string
		entrypoint, cmd []string
		want            []string // nil: refused
	}{
		{"the image's", nil, nil, []string{"/entry", "image", "cmd"}},
		{"cmd", nil, []string{"mine"}, []string{"/entry", "mine"}},
		{"no cmd", nil, []string{}, []string{"/entry"}},
		{"entrypoint drops the image's cmd", []string{"/my"}, nil, []string{"/my"}},
		{"both", []string{"/my"}, []string{"cmd"}, []string{"/my", "cmd"}},
		{"no entrypoint", []string{}, []string{"cmd"}, []string{"cmd"}},
		{"neither", []string{}, nil, nil},
		{"empty", []string{""}, nil, nil},
	} {
		p, err := process(Spec{Entrypoint: tt.entrypoint, Cmd: tt.cmd}, img)
		if !slices.Equal(p.Argv, tt.want) || (tt.want == nil) != errors.Is(err, api.Invalid) {
			t.Errorf("%s: %q, %v; want %q", tt.name, p.Argv, err, tt.want)
		}
	}
	p, err := process(Spec{Env: map[string]string{"A": "over", "Z": "", "B": "new"}}, img)
	if want := []string{"A=over", "PATH=/x", "EMPTY", "B=new", "Z="}; err != nil || !slices.Equal(p.Env, want) {
		t.Errorf("env %q, %v; want %q", p.Env, err, want)
	}
	if p.Dir != "/srv" || p.User != "www" || p.StopSignal != "SIGQUIT" {
		t.Errorf("process %+v", p)
	}
	if got := environment(nil, nil); !slices.Equal(got, []string{defaultPath}) {
		t.Errorf("without any environment %q", got)
	}
}

func TestPool(t *testing.T) {
	for _, bad := range []string{"fd00::/64", "10.0.0.0/30", "10.0.0.0/4"} {
		if _, err := newPool(netip.MustParsePrefix(bad)); err == nil {
			t.Errorf("took %s", bad)
		}
	}
	p, err := newPool(netip.MustParsePrefix("10.1.2.77/29")) // .72 to .79, of which .73 is the gateway
	if err != nil {
		t.Fatal(err)
	}
	if a := netip.MustParseAddr("10.1.2.75"); !p.reserve(a) || p.reserve(a) {
		t.Error("an address is taken once")
	}
	take := func() string {
		a, err := p.take()
		if err != nil {
			return err.Error()
		}
		return a.String()
	}
	for _, want := range []string{"10.1.2.76", "10.1.2.77", "10.1.2.78", "10.1.2.74"} {
		if got := take(); got != want {
			t.Errorf("took %s, want %s", got, want)
		}
	}
	if _, err := p.take(); !errors.Is(err, api.Exhausted) {
		t.Errorf("none is left: %v", err)
	}
	p.free(netip.MustParseAddr("10.1.2.77"))
	if got := take(); got != "10.1.2.77" {
		t.Errorf("took %s", got)
	}
	if got := mac(netip.MustParseAddr("10.77.1.2")); got != "02:68:0a:4d:01:02" {
		t.Errorf("mac %s", got)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newID()
		if !idPattern.MatchString(id) || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	for image, base := range map[string]string{
		"docker.io/library/nginx:latest":                         "nginx-",
		"ghcr.io/owner/My_App@sha256:" + strings.Repeat("0", 64): "my-app-",
		"localhost:5000/..":                                      "instance-",
		"":                                                       "instance-",
		strings.Repeat("long-", 40):                              strings.Repeat("long-", 8),
	} {
		if name := newName(image); !ValidName(name) || !strings.HasPrefix(name, base) || len(name) != len(base)+4 {
			t.Errorf("image %q: name %q, want %s…", image, name, base)
		}
	}
	for name, want := range map[string]bool{
		"a": true, "0": true, "a-b": true, "a--b": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a_b": false, "a.b": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		if ValidName(name) != want {
			t.Errorf("name %q: %v, want %v", name, !want, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1GB": 1 << 30, "1 gb": 1 << 30, "1g": 1 << 30, "1GiB": 1 << 30, "512MB": 512 << 20, "1.5 G": 3 << 29, "2T": 2 << 40,
		"1024": 1024, "1b": 1, " 4KB ": 4096, "0.5k": 512,
	} {
		s, err := ParseSize(text)
		if err != nil || s.Bytes != want || s.Text != text || s.String() != text {
			t.Errorf("%q: %+v, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "GB", "-1GB", "1XB", "1.2.3GB", "1e3", "0", "0GB", "0.1b", "NaN", "Inf", "9999999TB", "1GB2", "1_000", strings.Repeat("1", 40)} {
		if s, err := ParseSize(text); err == nil {
			t.Errorf("%q: %+v", text, s)
		}
	}
	for bytes, want := range map[int64]string{1 << 30: "1GB", 1536 << 20: "1536MB", 1000: "1000B", 3 << 40: "3TB", 0: "0B"} {
		if got := (Size{Bytes: bytes}).String(); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"1GB", "1.5 g", "", "0x10", "1e9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSize(text)
		if err != nil {
			return
		}
		if s.Bytes < 1 || s.Bytes >= 1<<60 {
			t.Fatalf("%q: %d bytes", text, s.Bytes)
		}
		if again, err := ParseSize(s.String()); err != nil || again != s {
			t.Fatalf("%q became %+v, %v", text, again, err)
		}
	})
}
