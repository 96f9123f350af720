package server

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// A full disk is the person's to mend, and told so; what else went wrong on our side is only in the log.
func TestAFullDiskIsToldAsOne(t *testing.T) {
	write := func(why error) error {
		return fmt.Errorf("update: %w", &fs.PathError{Op: "write", Path: "/secret/instance.json", Err: why})
	}
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		a, body := describe(write(full), "R1")
		if a.status != 409 || !a.unsaid || !a.noRetry || body.Code != "insufficient_resources" || !strings.HasPrefix(body.Message, "disk full") || strings.Contains(body.Message, "/secret") || body.RequestID != "" {
			t.Errorf("%v: %+v %+v", full, a, body)
		}
	}
	if a, body := describe(write(syscall.EIO), "R1"); a.status != 500 || strings.Contains(body.Message, "/secret") || body.RequestID != "R1" {
		t.Errorf("another: %+v %+v", a, body)
	}
}
