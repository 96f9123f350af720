package pid1

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

var errWaited = errors.New("it did not appear in time")

// waitFor asks often, because a boot waits for the answer.
func waitFor(limit time.Duration, there func() bool) error {
	for deadline := time.Now().Add(limit); !there(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errWaited
		}
	}
	return nil
}

// matching returns the name of the directory of the first file that pattern matches and that holds value; "": none.
func matching(pattern, value string) string {
	files, _ := filepath.Glob(pattern)
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimRight(string(b), "\n\x00") == value {
			return filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}
