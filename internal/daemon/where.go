package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/halevm/hale/internal/store"
	"github.com/halevm/hale/internal/version"
)

// Where is what a daemon writes down (DIR/hale.json) so that the command line of the same machine finds it.
type Where struct {
	URL     string `json:"url"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

// WhereFile is its name in a data directory.
const WhereFile = "hale.json"

// ErrNone says that no daemon runs with a data directory.
var ErrNone = errors.New("no daemon runs")

// Find returns where the daemon of a data directory is. What one wrote down that was killed is not believed: somebody else may listen
// there by now, who is to get no token. Errors: ErrNone; a daemon that does not answer yet; and the disk's.
func Find(dir string) (Where, error) {
	b, err := os.ReadFile(filepath.Join(dir, WhereFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Where{}, ErrNone
	}
	if err != nil {
		return Where{}, err
	}
	var w Where
	if err := json.Unmarshal(b, &w); err != nil {
		return Where{}, fmt.Errorf("%s: %w", WhereFile, err)
	}
	pid, held, err := store.Holder(filepath.Join(dir, lockFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Where{}, ErrNone
	case err != nil:
		return Where{}, err
	case !held:
		return Where{}, ErrNone
	case pid != 0 && pid != w.PID: // it is another one's that was killed
		return Where{}, fmt.Errorf("the daemon (process %d) is starting, and does not answer yet", pid)
	}
	return w, nil
}

func writeWhere(dir, url string) error {
	b, err := json.Marshal(Where{URL: url, PID: os.Getpid(), Version: version.String()})
	if err != nil {
		return err
	}
	return store.WriteFile(filepath.Join(dir, WhereFile), append(b, '\n'), 0o600)
}
