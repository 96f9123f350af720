package api

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: the contract builds on the standard library alone.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); len(got) != 1 || got[0] != "github.com/halevm/hale/api" {
		t.Errorf("builds on %q, want nothing but itself", got)
	}
}
