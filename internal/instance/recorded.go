package instance

import (
	"encoding/json"

	"github.com/halevm/hale/internal/health"
)

// UnmarshalJSON reads a spec from a record. A health check that an earlier version accepted and this one refuses is none: the record says
// much else, which is not to be lost with it. refused says so, for the instance's log.
func (s *Spec) UnmarshalJSON(b []byte) error {
	type Plain Spec
	read := struct {
		*Plain
		HealthCheck *health.Recorded `json:"health_check"`
		ImageCheck  *health.Recorded `json:"image_check"`
	}{Plain: (*Plain)(s)}
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	for _, c := range []struct {
		read   *health.Recorded
		policy **health.Policy
	}{{read.HealthCheck, &s.HealthCheck}, {read.ImageCheck, &s.ImageCheck}} {
		if c.read == nil {
			continue
		}
		*c.policy = &c.read.Policy
		if err := c.read.Refused; err != nil {
			s.refused = append(s.refused, err)
		}
	}
	return nil
}
