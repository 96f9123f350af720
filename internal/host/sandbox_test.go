package host

import (
	"strings"
	"testing"

	"github.com/halevm/hale/internal/sandbox"
)

func TestLayer(t *testing.T) {
	if c := layer("x", sandbox.Layer{Works: true}, "it holds", "mend it"); c.Verdict != OK || c.Detail != "it holds" || c.Mend != "" {
		t.Errorf("one that works: %+v", c)
	}
	if c := layer("x", sandbox.Layer{Why: "no"}, "it holds", "mend it"); c.Verdict != Warn || !strings.Contains(c.Detail, "no") || c.Mend != "mend it" {
		t.Errorf("one that does not: %+v", c)
	}
}

// What an older Landlock lacks is said, and said less of with each version.
func TestLandlockHas(t *testing.T) {
	for abi, lacks := range map[int]int{1: 4, 2: 4, 3: 3, 4: 2, 5: 1, 6: 0, 7: 0} {
		if got := strings.Count(landlockHas(abi), "no "); got != lacks {
			t.Errorf("ABI %d: %q", abi, landlockHas(abi))
		}
	}
}
