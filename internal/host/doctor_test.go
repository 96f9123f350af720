package host

import (
	"strings"
	"testing"
)

// A device that this user may not open is no want of virtualisation.
func TestKVMMend(t *testing.T) {
	if s := kvmMend("/dev/kvm may not be opened by this user"); !strings.Contains(s, "usermod") {
		t.Errorf("%q", s)
	}
	if s := kvmMend("/dev/kvm is not there"); !strings.Contains(s, "enable virtualisation") {
		t.Errorf("%q", s)
	}
}

// What is missing is told as a person says it, and little room is not none.
func TestChecksOfADirectory(t *testing.T) {
	dir := t.TempDir()
	if c := checkKernel(dir); c.Verdict != Fail || c.Detail != "none is here yet" {
		t.Errorf("%+v", c)
	}
	if c := checkDataDir(dir); !strings.HasSuffix(c.Detail, " free") || strings.Contains(c.Detail, " 0.0 GB") {
		t.Errorf("%+v", c)
	}
}
