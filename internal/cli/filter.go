package cli

import (
	"strings"

	"github.com/halevm/hale/api"
)

// The states and the health of an instance, in the order in which they are told.
var (
	states = []api.InstanceState{
		api.InstanceStateCreated, api.InstanceStateInitializing, api.InstanceStateRunning, api.InstanceStatePaused,
		api.InstanceStateShutdown, api.InstanceStateStopped, api.InstanceStateStandby, api.InstanceStateUnknown,
	}
	healths = []api.HealthState{
		api.HealthStateHealthy, api.HealthStateUnhealthy, api.HealthStateStarting, api.HealthStateUnknown, api.HealthStateDisabled,
	}
)

// oneOf is the value of all that s is, in whatever case; "" is "".
func oneOf[T ~string](flag, s string, all []T) (T, error) {
	words := make([]string, len(all))
	for i, v := range all {
		if strings.EqualFold(s, string(v)) {
			return v, nil
		}
		words[i] = string(v)
	}
	if s == "" {
		return "", nil
	}
	return "", usagef("%s %q: one of %s", flag, s, strings.Join(words, ", "))
}
