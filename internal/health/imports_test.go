package health

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The package stands alone: nothing of ours, and besides it only the standard library.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	deps := slices.DeleteFunc(strings.Fields(string(out)), func(s string) bool { return s == "github.com/halevm/hale/internal/health" })
	if len(deps) > 0 {
		t.Errorf("imports %s", deps)
	}
}
