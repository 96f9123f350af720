package cli

import (
	"fmt"
	"strings"

	"github.com/halevm/hale/api"
)

// changeLine is a change of status, or of its being stale, in a line.
func changeLine(tr api.HealthTransition) string {
	why := changeWhy(tr)
	switch {
	case tr.From == tr.To:
		return fmt.Sprintf("%s, %s", tr.To, why)
	case why == "":
		return fmt.Sprintf("%s → %s", tr.From, tr.To)
	}
	return fmt.Sprintf("%s → %s: %s", tr.From, tr.To, why)
}

// changeWhy is why a change came about, what it changed where that is not the status, and whether a start of the daemon would know of it.
func changeWhy(tr api.HealthTransition) string {
	var parts []string
	stale := strings.ReplaceAll(tr.Stale, "_", " ")
	switch {
	case stale != "" && !strings.HasPrefix(tr.Reason, stale):
		parts = append(parts, "stale", stale)
	case stale != "": // the reason says more of it
		parts = append(parts, "stale")
	case tr.From == tr.To:
		parts = append(parts, "no longer stale")
	}
	if tr.Reason != "" {
		parts = append(parts, tr.Reason)
	}
	s := strings.Join(parts, ": ")
	if !or(tr.Persisted, true) {
		s = strings.TrimSpace(s + " (not on disk)")
	}
	return s
}
