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

// changeWhy is why a change came about, what it changed where that is not the status, and what else there is to know of it.
func changeWhy(tr api.HealthTransition) string {
	stale := strings.ReplaceAll(tr.Stale, "_", " ")
	s := tr.Reason
	switch {
	case tr.From != tr.To && stale != "":
		s += fmt.Sprintf(" (stale: %s)", stale)
	case tr.From != tr.To:
	case stale == "":
		s = "no longer stale: " + s
	case strings.HasPrefix(tr.Reason, stale): // it says more of it
		s = "stale: " + s
	default:
		s = "stale: " + stale + ": " + s
	}
	s = strings.TrimSuffix(s, ": ")
	if !or(tr.Persisted, true) {
		s += " (not on disk)"
	}
	return strings.TrimSpace(s)
}
