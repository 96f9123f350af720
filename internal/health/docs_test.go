package health

import (
	"os"
	"strings"
	"testing"
)

// The page for users has every cause in its table.
func TestCausesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/health.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for line := range strings.Lines(string(page)) {
		if row, ok := strings.CutPrefix(line, "| `"); ok {
			table.WriteString(strings.SplitN(row, "|", 2)[0])
		}
	}
	for _, cause := range causes {
		if !strings.Contains(table.String(), cause+"`") {
			t.Errorf("docs/health.md has no row for the cause %s", cause)
		}
	}
}
