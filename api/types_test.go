package api

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// TestWire holds what clients see of the generated types and no schema says loudly: what is null, absent or empty.
func TestWire(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"expires_at is there, and null": {
			Instance{ID: "i", Name: "n", Image: "m", State: InstanceStateRunning, CreatedAt: created},
			`{"created_at":"2026-01-02T03:04:05Z","expires_at":null,"id":"i","image":"m","name":"n","state":"Running"}`,
		},
		"a digest is there, and empty": {
			Image{Name: "n", Status: ImageStatusPending, CreatedAt: created},
			`{"created_at":"2026-01-02T03:04:05Z","digest":"","name":"n","status":"pending"}`,
		},
		"no cmd":                    {StartInstanceRequest{}, `{}`},
		"an empty cmd":              {StartInstanceRequest{Cmd: []string{}}, `{"cmd":[]}`},
		"no check":                  {UpdateInstanceRequest{}, `{}`},
		"back to the image's check": {UpdateInstanceRequest{HealthCheck: json.RawMessage("null")}, `{"health_check":null}`},
		"a variable goes":           {UpdateInstanceRequest{Env: map[string]*string{"A": nil}}, `{"env":{"A":null}}`},
		"tags go":                   {UpdateInstanceRequest{Tags: map[string]string{}}, `{"tags":{}}`},
		"a healthy status": {
			InstanceHealthStatus{Status: HealthStateHealthy, ConsecutiveSuccesses: 1},
			`{"consecutive_failures":0,"consecutive_successes":1,"status":"healthy"}`,
		},
		"an error": {
			ErrorBody{Code: "c", Message: "m", Details: []ErrorDetail{{Code: "d", Message: "n", Field: "health_check.http.port"}}},
			`{"code":"c","details":[{"code":"d","message":"n","field":"health_check.http.port"}],"message":"m"}`,
		},
		"an exec that ends with 0": {ExecControl{Type: ExecControlTypeExit, ExitCode: new(int)}, `{"exitCode":0,"type":"exit"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(test.value)
			if err != nil || string(got) != test.want {
				t.Errorf("got %s, %v\nwant %s", got, err, test.want)
			}
			back := reflect.New(reflect.TypeOf(test.value))
			if err := json.Unmarshal(got, back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), test.value) {
				t.Errorf("read back as %+v, %v", back.Elem(), err)
			}
		})
	}
}

// TestChecksStayRaw: a health_check reaches the domain byte for byte, faults and unknown fields too.
func TestChecksStayRaw(t *testing.T) {
	const check = `{"typ": "http",  "interval": 5}`
	var create CreateInstanceRequest
	var update UpdateInstanceRequest
	for _, v := range []any{&create, &update} {
		if err := json.Unmarshal([]byte(`{"image":"x","health_check":`+check+`,"unheard_of":1}`), v); err != nil {
			t.Fatal(err)
		}
	}
	if string(create.HealthCheck) != check || string(update.HealthCheck) != check {
		t.Errorf("got %s and %s, want %s", create.HealthCheck, update.HealthCheck, check)
	}
}
