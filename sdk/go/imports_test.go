package hale

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: of this project the package builds on api and nothing else, so that a program may use it without a daemon.
func TestImports(t *testing.T) {
	const module, own = "github.com/halevm/hale/", "github.com/halevm/hale/sdk/go"
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, dep := range strings.Fields(string(out)) {
		seen = seen || dep == module+"api"
		if strings.HasPrefix(dep, module) && dep != own && dep != module+"api" {
			t.Errorf("imports %s", dep)
		}
	}
	if !seen {
		t.Errorf("go list does not name %sapi among %d packages", module, len(out))
	}
}
