//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
)

// noRetries fails the test in which a machine was booted twice: by the metric of this daemon, and by the log, which those before it wrote too.
func (h *host) noRetries(ctx context.Context) {
	h.t.Helper()
	if m := h.metricsIn(ctx); !strings.Contains(m, "\nhale_boot_retries_total 0\n") {
		h.t.Error("a machine was booted twice: hale_boot_retries_total is not 0")
	}
	logs, err := filepath.Glob(filepath.Join(h.dir, "events", "*.log"))
	if err != nil || len(logs) == 0 {
		h.t.Errorf("no log of events: %v", err)
	}
	for _, name := range logs {
		b, err := os.ReadFile(name)
		if err != nil {
			h.t.Error(err)
		}
		for line := range bytes.Lines(b) {
			if bytes.Contains(line, []byte(`"boot_retry"`)) {
				h.t.Errorf("a machine was booted twice: %s", line)
			}
		}
	}
}
