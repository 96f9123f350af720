//go:build e2e && soak

package e2e

import "testing"

// Two hundred boots in a row, of which none fails and none is tried twice, leave nothing behind: make soak-boot.
func TestSoakBoot(t *testing.T) {
	t.Setenv("HALE_BOOT_RETRIES", "0")
	newHost(t, workload).boots(200)
}
