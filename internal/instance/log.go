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
	own := slog.NewTextHandler(lines{dir}, &slog.HandlerOptions{Level: slog.LevelInfo})
	return slog.New(slog.NewMultiHandler(parent.With("instance", id).Handler(), own))
}

// lines writes to the log in a directory. Lines are few, so each opens the file: an instance at rest holds no descriptor.
type lines struct{ dir string }

func (l lines) Write(p []byte) (int, error) {
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
