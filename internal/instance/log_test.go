package instance

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What cannot be written waits for the next line, within bounds.
func TestLogWaitsForRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	log := newLogger(slog.New(slog.DiscardHandler), dir, "abc")
	log.Warn("the disk is full")
	log.Info("still so")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, LogName))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	log.Info("there is room")
	log.Info("and more")
	last := -1
	for _, want := range []string{"the disk is full", "still so", "there is room", "and more"} {
		at := strings.Index(read(), want)
		if at <= last || strings.Count(read(), want) != 1 {
			t.Errorf("%q is at %d, behind %d:\n%s", want, at, last, read())
		}
		last = at
	}

	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		log.Info(strings.Repeat("x", 100))
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	before := len(read())
	log.Info("the end")
	if grown := len(read()) - before; grown > maxWaiting || !strings.HasSuffix(read(), "msg=\"the end\"\n") {
		t.Errorf("%d bytes had waited", grown)
	}
}
