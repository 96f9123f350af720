package instance

import (
	"errors"
	"log/slog"
	"os"

	"github.com/halevm/hale/internal/logfile"
)

// LogName is the daemon's own log of an instance, in the instance's directory.
const LogName = "hale.log"

// newLogger writes what happens to an instance to two places: the daemon's log, and the instance's own, which lives and
// dies with its directory.
func newLogger(parent *slog.Logger, dir, id string) *slog.Logger {
	own := slog.NewTextHandler(&lines{dir: dir}, &slog.HandlerOptions{Level: slog.LevelInfo})
	return slog.New(slog.NewMultiHandler(parent.With("instance", id).Handler(), own))
}

// maxWaiting bounds what waits for room on the disk, in bytes.
const maxWaiting = 8 << 10

// lines writes to the log in a directory. Lines are few, so each opens the file: an instance at rest holds no descriptor. What the disk
// refuses waits for the next line: that the disk is full should be read there, too.
type lines struct {
	dir     string
	waiting []byte // slog's handler writes one line at a time
}

func (l *lines) Write(p []byte) (int, error) {
	if len(l.waiting)+len(p) > maxWaiting {
		l.waiting = nil // the oldest words are worth least, and half a line nothing
	}
	l.waiting = append(l.waiting, p...)
	n, err := l.append(l.waiting)
	if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	return len(p), err
}

func (l *lines) append(p []byte) (int, error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	w, err := logfile.Create(root, LogName, 0, 0)
	if err != nil {
		return 0, err
	}
	n, err := w.Write(p)
	return n, errors.Join(err, w.Close())
}
