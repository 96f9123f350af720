package server

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
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

// A 503 says when to come again, also where no client does so by itself.
func TestUnavailableSaysWhen(t *testing.T) {
	for after, e := range map[time.Duration]*api.Error{
		5 * time.Second:  {Kind: api.Unavailable, Code: "registry_unavailable", NoRetry: true},
		50 * time.Second: {Kind: api.Unavailable, Code: "pull_stalled", NoRetry: true, RetryAfter: 50 * time.Second},
	} {
		if a, _ := describe(e, "R1"); a.status != 503 || a.after != after || !a.noRetry {
			t.Errorf("%+v: %+v", e, a)
		}
	}
}
