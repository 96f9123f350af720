package health

import (
	"encoding/json"
	"time"
)

// MarshalJSON gives the policy as the API answers with it: with its defaults filled in, without what follows from other fields.
// Parse of it gives an equal policy. No policy is null.
func (p Policy) MarshalJSON() ([]byte, error) {
	switch p.Type {
	case "":
		return []byte("null"), nil
	case TypeNone:
		return []byte(`{"type":"none"}`), nil
	}
	w := wirePolicy{
		Type:             p.Type,
		Interval:         p.Interval.String(),
		Timeout:          p.Timeout.String(),
		StartPeriod:      p.StartPeriod.String(),
		StartInterval:    given(p.StartInterval),
		ConfirmInterval:  given(p.ConfirmInterval),
		FailureThreshold: p.FailureThreshold,
		SuccessThreshold: p.SuccessThreshold,
	}
	if c := p.HTTP; c != nil {
		w.HTTP = &wireHTTP{c.Port, c.Path, c.Scheme, c.Method, c.Headers, c.ExpectedStatus, c.ExpectedStatuses, c.BodyContains, c.TLSSkipVerify, c.TLSServerName}
	}
	if c := p.TCP; c != nil {
		w.TCP = &wireTCP{c.Port}
	}
	if c := p.Exec; c != nil {
		w.Exec = &wireExec{c.Command, c.WorkingDir, c.Env, c.User}
	}
	if c := p.GRPC; c != nil {
		w.GRPC = &wireGRPC{c.Port, c.Service}
	}
	return json.Marshal(w)
}

func given(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// The wire forms: what MarshalJSON writes. Parse does not use them, for it has to name every fault.
type (
	wirePolicy struct {
		Type             Type      `json:"type"`
		Interval         string    `json:"interval"`
		Timeout          string    `json:"timeout"`
		StartPeriod      string    `json:"start_period"`
		StartInterval    string    `json:"start_interval,omitempty"`
		ConfirmInterval  string    `json:"confirm_interval,omitempty"`
		FailureThreshold int       `json:"failure_threshold"`
		SuccessThreshold int       `json:"success_threshold"`
		HTTP             *wireHTTP `json:"http,omitempty"`
		TCP              *wireTCP  `json:"tcp,omitempty"`
		Exec             *wireExec `json:"exec,omitempty"`
		GRPC             *wireGRPC `json:"grpc,omitempty"`
	}
	wireHTTP struct {
		Port             uint16            `json:"port"`
		Path             string            `json:"path"`
		Scheme           string            `json:"scheme"`
		Method           string            `json:"method"`
		Headers          map[string]string `json:"headers,omitempty"`
		ExpectedStatus   int               `json:"expected_status,omitempty"`
		ExpectedStatuses []string          `json:"expected_statuses,omitempty"`
		BodyContains     string            `json:"body_contains,omitempty"`
		TLSSkipVerify    bool              `json:"tls_skip_verify"`
		TLSServerName    string            `json:"tls_server_name,omitempty"`
	}
	wireTCP struct {
		Port uint16 `json:"port"`
	}
	wireExec struct {
		Command    []string          `json:"command"`
		WorkingDir string            `json:"working_dir,omitempty"`
		Env        map[string]string `json:"env,omitempty"`
		User       string            `json:"user,omitempty"`
	}
	wireGRPC struct {
		Port    uint16 `json:"port"`
		Service string `json:"service,omitempty"`
	}
)
