package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// request parses a command line of run into the request that it makes.
func request(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var f createFlags
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.register(flags)
	if err := flags.Parse(args); err != nil {
		return "", usageError{err}
	}
	env := map[string]string{"HOME_TOWN": "Basel"}
	req, err := f.request(flags.Args(), func(k string) string { return env[k] })
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

func TestRunRequest(t *testing.T) {
	envFile := filepath.Join(t.TempDir(), "env")
	os.WriteFile(envFile, []byte("# a comment\n\nA=from file\n  B=two = 2\nC=1\n"), 0o600)
	tests := []struct {
		args string
		want string
	}{
		{"--name w nginx", `{"image":"nginx","name":"w"}`},
		{"--name w nginx sh -c -p", `{"cmd":["sh","-c","-p"],"image":"nginx","name":"w"}`},
		{"--name w --memory 512MB --overlay 2GB --cpus 4 --ttl 1h30m nginx",
			`{"image":"nginx","name":"w","overlay_size":"2GB","size":"512MB","ttl":"1h30m0s","vcpus":4}`},
		{"--name w --size 2GB nginx", `{"image":"nginx","name":"w","size":"2GB"}`},
		{"--name w --tag team=web --label tier= nginx", `{"image":"nginx","name":"w","tags":{"team":"web","tier":""}}`},
		{"--name w --entrypoint /bin/app nginx --fast", `{"cmd":["--fast"],"entrypoint":["/bin/app"],"image":"nginx","name":"w"}`},
		{`--name w --entrypoint ["/a","b_c"] nginx`, `{"entrypoint":["/a","b_c"],"image":"nginx","name":"w"}`},
		{"--name w --env-file " + envFile + " -e C=3 -e HOME_TOWN -e NOWHERE -e D= nginx",
			`{"env":{"A":"from file","B":"two = 2","C":"3","D":"","HOME_TOWN":"Basel"},"image":"nginx","name":"w"}`},
		{"--name w --no-outbound nginx", `{"image":"nginx","name":"w","network":{"outbound":false}}`},
		{"--name w --allow-net 192.168.1.0/24 --allow-net 10.0.0.1 nginx", `{"image":"nginx","name":"w","network":{"allow":["192.168.1.0/24","10.0.0.1"]}}`},
		{"--name w --allow-net 192.168.1.0/24,10.0.0.1 --allow-net 172.16.0.0/12 nginx", `{"image":"nginx","name":"w","network":{"allow":["192.168.1.0/24","10.0.0.1","172.16.0.0/12"]}}`},
		{"--name w --no-network nginx", `{"image":"nginx","name":"w","network":{"enabled":false}}`},
		{"--name w -p 80 -p 8080:80/tcp -p 0.0.0.0:8081:81 -p 127.0.0.1::82 -p [::1]:8083:83 nginx",
			`{"image":"nginx","name":"w","network":{"ports":[{"guest_port":80,"host_port":0},{"guest_port":80,"host_port":8080},` +
				`{"guest_port":81,"host_addr":"0.0.0.0","host_port":8081},{"guest_port":82,"host_addr":"127.0.0.1","host_port":0},` +
				`{"guest_port":83,"host_addr":"::1","host_port":8083}]}}`},
		{"--name w --health-http :80/healthz?x=1 --health-interval 5s --health-retries 2 nginx",
			`{"health_check":{"failure_threshold":2,"http":{"path":"/healthz?x=1","port":80},"interval":"5s"},"image":"nginx","name":"w"}`},
		{"--name w --health-http 80 nginx", `{"health_check":{"http":{"port":80}},"image":"nginx","name":"w"}`},
		{"--name w --health-http :80/ nginx", `{"health_check":{"http":{"port":80}},"image":"nginx","name":"w"}`},
		{"--name w --health-http https://:8443/ nginx", `{"health_check":{"http":{"port":8443,"scheme":"https"}},"image":"nginx","name":"w"}`},
		{"--name w --health-http https:///x nginx", `{"health_check":{"http":{"path":"/x","port":443,"scheme":"https"}},"image":"nginx","name":"w"}`},
		{"--name w --health-tcp :5432 --health-timeout 1s --health-success-threshold 2 nginx",
			`{"health_check":{"success_threshold":2,"tcp":{"port":5432},"timeout":"1s"},"image":"nginx","name":"w"}`},
		{"--name w --health-tcp 5432 --health-start-period 0s --health-start-interval 200ms nginx",
			`{"health_check":{"start_interval":"200ms","start_period":"0s","tcp":{"port":5432}},"image":"nginx","name":"w"}`},
		{"--name w --health-grpc :50051 nginx", `{"health_check":{"grpc":{"port":50051}},"image":"nginx","name":"w"}`},
		{"--name w --health-grpc 50051/shop.Cart --health-interval 5s nginx", `{"health_check":{"grpc":{"port":50051,"service":"shop.Cart"},"interval":"5s"},"image":"nginx","name":"w"}`},
		{"--name w --health-interval 5s nginx", `{"health_check_override":{"interval":"5s"},"image":"nginx","name":"w"}`},
		{"--name w --health-cmd true --health-timeout 1s --health-retries 5 --health-start-period 0s --health-start-interval 1s --health-success-threshold 2 nginx",
			`{"health_check_override":{"cmd":"true","failure_threshold":5,"start_interval":"1s","start_period":"0s","success_threshold":2,"timeout":"1s"},"image":"nginx","name":"w"}`},
		{"--name w --no-healthcheck nginx", `{"health_check":{"type":"none"},"image":"nginx","name":"w"}`},
	}
	for _, tt := range tests {
		got, err := request(t, strings.Fields(tt.args)...)
		if err != nil || got != tt.want {
			t.Errorf("run %s\n got %s, %v\nwant %s", tt.args, got, err, tt.want)
		}
	}
	got, err := request(t, "--name", "w", "--health-cmd", "pg_isready -q", "postgres")
	if want := `{"health_check_override":{"cmd":"pg_isready -q"},"image":"postgres","name":"w"}`; got != want || err != nil {
		t.Errorf("--health-cmd: %s, %v", got, err)
	}
	got, err = request(t, "--name", "w", "--health-exec", "pg_isready -q", "postgres")
	if want := `{"health_check":{"exec":{"command":["pg_isready","-q"]}},"image":"postgres","name":"w"}`; got != want || err != nil {
		t.Errorf("--health-exec: %s, %v", got, err)
	}
}

func TestRunUsage(t *testing.T) {
	tests := []struct{ args, want string }{
		{"-p 0 nginx", `"0" is not a port`},
		{"-p 80:70000 nginx", `"70000" is not a port`},
		{"-p web:80:80 nginx", `"web" is not an IP address`},
		{"-p 53:53/udp nginx", "only TCP"},
		{"-p 80 --no-network nginx", "needs the network"},
		{"--allow-net 10.0.0.0/8 --no-network nginx", "needs the traffic to the outside"},
		{"--allow-net 10.0.0.0/8 --no-outbound nginx", "needs the traffic to the outside"},
		{"-e =x nginx", "not KEY=VALUE"},
		{"--tag x nginx", "not KEY=VALUE"},
		{"--health-http http://example.com:80/ nginx", "a check asks the instance itself"},
		{"--health-http ftp://:80/ nginx", "the scheme is http or https"},
		{"--health-http :80/a#b nginx", "write :PORT/path"},
		{"--health-http /path nginx", `is not a port`},
		{"--health-tcp :x nginx", `"x" is not a port`},
		{"--health-tcp :80 --health-http :80 nginx", "--health-http and --health-tcp: one check at a time"},
		{"--health-grpc :80 --health-cmd x nginx", "--health-grpc and --health-cmd: one check at a time"},
		{"--health-grpc :x nginx", `--health-grpc: "x" is not a port`},
		{"--health-tcp :80 --no-healthcheck nginx", "--health-tcp does not go with --no-healthcheck"},
		{"--no-healthcheck --health-interval 5s nginx", "--health-interval does not go with --no-healthcheck"},
		{"--health-cmd= nginx", "--health-cmd is empty"},
		{"--health-exec [1] nginx", "not a JSON array"},
		{"--health-exec [] nginx", "names no program"},
		{"--health-interval soon nginx", "invalid"},
		{"--bogus nginx", "unknown flag"},
	}
	for _, tt := range tests {
		_, err := request(t, strings.Fields(tt.args)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || codeOf(err) != exitUsage {
			t.Errorf("run %s: %v (exit %d), want %q and exit 2", tt.args, err, codeOf(err), tt.want)
		}
	}
	if _, err := request(t, "--env-file", "/nonexistent", "nginx"); !errors.Is(err, os.ErrNotExist) || codeOf(err) != exitNotFound {
		t.Errorf("a missing --env-file: %v", err)
	}
}

func TestNameFor(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	for image, prefix := range map[string]string{
		"nginx": "nginx-", "docker.io/library/nginx:1.27": "nginx-", "ghcr.io/a/My_App@sha256:00": "my-app-", "localhost:5000/x": "x-",
		"___": "instance-", strings.Repeat("a", 100): strings.Repeat("a", 50) + "-",
	} {
		got := nameFor(image)
		if !strings.HasPrefix(got, prefix) || !valid.MatchString(got) || len(got) > 63 {
			t.Errorf("nameFor(%q) = %q", image, got)
		}
	}
}

func FuzzPublish(f *testing.F) {
	f.Add("[::1]:8083:83")
	f.Add("80/tcp")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePublish(s)
		if err == nil && (p.GuestPort < 1 || p.GuestPort > 65535 || p.HostPort < 0 || p.HostPort > 65535) {
			t.Errorf("parsePublish(%q) = %+v", s, p)
		}
	})
}
