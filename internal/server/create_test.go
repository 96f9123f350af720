package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
)

// refusal is what a client is told of an error.
func refusal(err error) (code string, fields []string) {
	if err == nil {
		return "", nil
	}
	_, body := describe(err, "request")
	for _, d := range body.Details {
		fields = append(fields, d.Field)
	}
	slices.Sort(fields)
	return body.Code, fields
}

// asked reads a create as the server does.
func asked(body []byte) (instance.Spec, error) {
	var q api.CreateInstanceRequest
	r := httptest.NewRequest(http.MethodPost, "/instances", bytes.NewReader(body))
	if err := decode(httptest.NewRecorder(), r, &q); err != nil {
		return instance.Spec{}, err
	}
	return specOf(q, time.Now())
}

func TestCreateIsRefusedByItsFields(t *testing.T) {
	for _, tc := range []struct {
		body, code string
		fields     string
	}{
		{`{}`, "invalid_request", "image"},
		{`{"image":"a","name":"-a"}`, "invalid_request", "name"},
		{`{"image":"a","name":"A"}`, "invalid_request", "name"},
		{`{"image":"a","name":"` + strings.Repeat("a", 64) + `"}`, "invalid_request", "name"},
		{`{"image":"a","vcpus":-1}`, "invalid_request", "vcpus"},
		{`{"image":"a","vcpus":65}`, "invalid_request", "vcpus"},
		{`{"image":"a","vcpus":"2","size":3,"env":[]}`, "invalid_request", "env size vcpus"},
		{`{"image":"a","size":"1 parsec"}`, "invalid_request", "size"},
		{`{"image":"a","size":"1KB"}`, "invalid_request", "size"},
		{`{"image":"a","size":"127MB"}`, "invalid_request", "size"},
		{`{"image":"a","size":"255MB","vcpus":64}`, "invalid_request", "size"},
		{`{"image":"a","size":"256MB","vcpus":1000000000}`, "invalid_request", "vcpus"},
		{`{"image":"a","overlay_size":"-1GB"}`, "invalid_request", "overlay_size"},
		{`{"image":"a","env":{"A=B":"c"}}`, "invalid_request", "env.A=B"},
		{`{"image":"a","env":{"":"c"}}`, "invalid_request", "env."},
		{`{"image":"a","env":{"A":"\u0000"}}`, "invalid_request", "env.A"},
		{`{"image":"a","tags":{"":"c"}}`, "invalid_request", "tags."},
		{`{"image":"a","cmd":["a","\u0000"]}`, "invalid_request", "cmd[1]"},
		{`{"image":"a","ttl":"soon"}`, "invalid_request", "ttl"},
		{`{"image":"a","ttl":"-1s"}`, "invalid_request", "ttl"},
		{`{"image":"a","ttl":"1h","expires_at":"2199-01-01T00:00:00Z"}`, "invalid_request", "ttl"},
		{`{"image":"a","expires_at":"2001-01-01T00:00:00Z"}`, "invalid_request", "expires_at"},
		{`{"image":"a","platform":"linux/arm64"}`, "invalid_platform", "platform"},
		{`{"image":"a","platform":"nonsense"}`, "invalid_platform", "platform"},
		{`{"image":"a","network":{"ports":[{"guest_port":0,"host_port":70000}]}}`, "invalid_request", "network.ports[0].guest_port network.ports[0].host_port"},
		{`{"image":"a","network":{"ports":[{"guest_port":80,"host_port":0,"host_addr":"here"}]}}`, "invalid_request", "network.ports[0].host_addr"},
		{`{"image":"a","network":{"ports":[{"guest_port":80,"host_port":0,"protocol":"udp"}]}}`, "unsupported", "network.ports[0].protocol"},
		{`{"image":"a","hypervisor":"firecracker"}`, "unsupported", "hypervisor"},
		{`{"image":"a","skip_guest_agent":true}`, "unsupported", "skip_guest_agent"},
		{`{"image":"a","auto_standby":{"idle_timeout":"5m"}}`, "unsupported", "auto_standby"},
		{`{"image":"a","restart_policy":{"policy":"on_failure"}}`, "unsupported", "restart_policy"},
		{`{"image":"a","network":{"bandwidth_upload":"1Gbps"}}`, "unsupported", "network.bandwidth_upload"},
		{`{"image":"a","network":{"egress":{"enabled":true}}}`, "unsupported", "network.egress.enabled"},
		{`{"image":"a","network":{"allow":["10.0.0.0/8","lan","127.0.0.0/8","203.0.113.0/24","fd00::/8"]}}`, "invalid_request", "network.allow[1] network.allow[2] network.allow[3] network.allow[4]"},
		{`{"image":"a","network":{"allow":"10.0.0.0/8"}}`, "invalid_request", "network.allow"},
		{`{"image":"a","network":{"allow":[` + strings.Repeat(`"10.0.0.0/8",`, 64) + `"10.0.0.0/8"]}}`, "invalid_request", "network.allow"},
		{`{"image":"a","network":{"outbound":false,"allow":["10.0.0.0/8"]}}`, "invalid_request", "network.allow"},
		{`{"image":"a","network":{"enabled":false,"allow":["10.0.0.0/8"]}}`, "invalid_request", "network.allow"},
		{`{"image":"a","network":{"outbound":"no"}}`, "invalid_request", "network.outbound"},
		{`{"image":"a","health_check":{"http":{"port":0},"interval":"1ms"}}`, "invalid_health_check", "health_check.http.port health_check.interval"},
		{`{"image":"a","health_check":{"tcp":{"port":80},"exec":{"command":["a"]}}}`, "invalid_health_check", "health_check"},
		{`{"image":"a","health_check":{"tcp":{"port":80},"colour":"red"}}`, "invalid_health_check", "health_check.colour"},
		{`{"name":"A","health_check":{"tcp":{}}}`, "invalid_health_check", "health_check.tcp.port image name"},
	} {
		_, err := asked([]byte(tc.body))
		if code, fields := refusal(err); code != tc.code || strings.Join(fields, " ") != tc.fields {
			t.Errorf("%s is refused as %s for %q: want %s for %q", tc.body, code, fields, tc.code, tc.fields)
		}
	}
}

func TestCreateTakesWhatAsksForNothing(t *testing.T) {
	for _, body := range []string{
		`{"image":"a"}`,
		`{"image":"a","a_field_of_tomorrow":{"x":[1]}}`,
		`{"image":"a","name":"","platform":"","size":"","overlay_size":"","ttl":"","hypervisor":"","vcpus":0}`,
		`{"image":"a","name":null,"env":null,"tags":null,"cmd":null,"network":null,"health_check":null,"auto_standby":null,"restart_policy":null}`,
		`{"image":"a","auto_standby":{"enabled":false,"idle_timeout":"5m"},"restart_policy":{"policy":"never"},"skip_guest_agent":false}`,
		`{"image":"a","auto_standby":{},"restart_policy":{},"gpu":{},"snapshot_policy":{},"credentials":{},"devices":[],"volumes":[],"hotplug_size":"0"}`,
		`{"image":"a","network":{"egress":{"enabled":false,"enforcement":{"mode":"all"}},"bandwidth_download":""},"skip_kernel_headers":true}`,
		`{"image":"a","snapshot_policy":{"compression":{"enabled":false}},"ttl":"0s"}`,
	} {
		spec, err := asked([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if spec.VCPUs != defaultVCPUs || spec.Memory.String() != defaultMemory || spec.Overlay.String() != defaultOverlay || !spec.ExpiresAt.IsZero() || spec.HealthCheck != nil {
			t.Errorf("%s: %+v", body, spec)
		}
	}
	spec, err := asked([]byte(`{"image":"a","size":"512MB","cmd":[],"health_check":{"type":"none"}}`))
	if err != nil || spec.Memory.String() != "512MB" || spec.Memory.Bytes != 512<<20 || spec.Cmd == nil || spec.HealthCheck == nil {
		t.Errorf("%+v, %v", spec, err)
	}
}

func TestCreateOutbound(t *testing.T) {
	spec, err := asked([]byte(`{"image":"a","network":{"allow":["192.168.1.0/24","10.0.0.1","192.168.1.0/24"]}}`))
	if err != nil || spec.NoOutbound || fmt.Sprint(spec.AllowNets) != "[192.168.1.0/24 10.0.0.1/32]" {
		t.Errorf("%+v, %v", spec, err)
	}
	shown := renderNetwork(instance.Instance{Spec: spec})
	if shown.Outbound == nil || !*shown.Outbound || fmt.Sprint(shown.Allow) != "[192.168.1.0/24 10.0.0.1/32]" {
		t.Errorf("shown as %+v", shown)
	}
	for body, none := range map[string]bool{
		`{"image":"a","network":{"outbound":false}}`:                                          true,
		`{"image":"a","network":{"outbound":true,"allow":[]}}`:                                false,
		`{"image":"a","network":{"outbound":null,"allow":null}}`:                              false,
		`{"image":"a","network":{"egress":{"enabled":false}}}`:                                false, // a proxy that is not wanted: traffic goes out directly
		`{"image":"a","network":{"outbound":false,"ports":[{"guest_port":1,"host_port":0}]}}`: true,
	} {
		spec, err := asked([]byte(body))
		if err != nil || spec.NoOutbound != none || *renderNetwork(instance.Instance{Spec: spec}).Outbound == none {
			t.Errorf("%s: %+v, %v", body, spec, err)
		}
	}
}

// FuzzCreate sends any body: it is refused as the caller's fault, with words, or it is a spec within the bounds.
func FuzzCreate(f *testing.F) {
	f.Add([]byte(`{"image":"nginx","name":"web","vcpus":2,"size":"1GB","env":{"A":"b"},"network":{"ports":[{"guest_port":80,"host_port":0}]},"health_check":{"http":{"port":80}},"ttl":"1h"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"image":1,"expires_at":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		spec, err := asked(body)
		if err != nil {
			a, told := describe(err, "request")
			if a.status != http.StatusBadRequest && a.status != http.StatusRequestEntityTooLarge || told.Message == "" || told.Code == "" {
				t.Fatalf("%q: %d %+v", body, a.status, told)
			}
			if _, err := json.Marshal(told); err != nil {
				t.Fatal(err)
			}
			return
		}
		if spec.Image == "" || spec.Name != "" && !instance.ValidName(spec.Name) || spec.VCPUs < 1 || spec.VCPUs > maxVCPUs ||
			spec.Memory.Bytes < minMemory || spec.Overlay.Bytes < minOverlay || len(spec.Ports) > maxPorts {
			t.Fatalf("%q is taken as %+v", body, spec)
		}
		for _, p := range spec.Ports {
			if p.GuestPort == 0 || !p.HostAddr.IsValid() {
				t.Fatalf("%q publishes %+v", body, p)
			}
		}
	})
}
