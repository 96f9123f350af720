package instance_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The domain imports no driver and no edge.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/halevm/hale/internal/instance").Output()
	if err != nil {
		t.Fatal(err)
	}
	may := []string{"api", "internal/egress", "internal/event", "internal/health", "internal/instance", "internal/logfile", "internal/machine", "internal/store"}
	for dep := range strings.Lines(string(out)) {
		ours, ok := strings.CutPrefix(strings.TrimSpace(dep), "github.com/halevm/hale/")
		if ok && !slices.Contains(may, ours) {
			t.Errorf("imports %s", ours)
		}
	}
}
