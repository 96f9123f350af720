package peer

import (
	"os"
	"path/filepath"
)

func slack() {
	v := os.Getenv("SLACK")
	if v == "" {
		return
	}
	tids, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range tids {
		if err := os.WriteFile("/proc/"+filepath.Base(t)+"/timerslack_ns", []byte(v), 0o644); err != nil {
			panic(err)
		}
	}
}
