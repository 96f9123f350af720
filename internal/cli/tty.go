package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// makeRaw hands every key to the guest until restore is called, which may be done twice. A stream that is no terminal is left alone.
func makeRaw(in io.Reader) (restore func(), err error) {
	fd, ok := terminal(in)
	if !ok {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("setting the terminal up: %w", err)
	}
	return sync.OnceFunc(func() { term.Restore(fd, before) }), nil
}

// windowSize returns the size of the terminal behind a stream, 0 and 0 if there is none.
func windowSize(out io.Writer) (rows, cols uint16) {
	fd, ok := terminal(out)
	if !ok {
		return 0, 0
	}
	w, h, err := term.GetSize(fd)
	if err != nil {
		return 0, 0
	}
	return uint16(h), uint16(w)
}

// onResize calls do with each new size of the terminal until ctx is done.
func onResize(ctx context.Context, out io.Writer, do func(rows, cols uint16)) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if rows, cols := windowSize(out); rows > 0 {
				do(rows, cols)
			}
		}
	}
}
