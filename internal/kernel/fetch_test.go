package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What the host has apt do beside an update is not done.
func TestAptRunsNoHooks(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("no apt-get here")
	}
	dir, conf := t.TempDir(), filepath.Join(t.TempDir(), "host.conf")
	hooks := fmt.Sprintf(`Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "/dev/null";
		APT::Update::Pre-Invoke { "touch %[1]s/pre"; };
		APT::Update::Post-Invoke { "touch %[1]s/post"; };
		APT::Update::Post-Invoke-Success { "touch %[1]s/success"; };`, dir)
	if err := os.WriteFile(conf, []byte(hooks), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", conf)
	a, err := newApt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer a.work.remove()
	if _, err := a.run(t.Context(), "apt-get", "update"); err != nil {
		t.Fatal(err)
	}
	if done := names(t, dir); len(done) > 0 {
		t.Errorf("the host's hooks ran: %q", done)
	}
}
