// Package agentbin holds the guest agent's binary, which `make build` builds before the program that embeds it.
package agentbin

import (
	"embed"
	"errors"
)

//go:embed all:bin
var files embed.FS

// ErrMissing is what a hale that was built without its agent answers.
var ErrMissing = errors.New("this hale was built without the guest agent: build it with `make build`")

// Agent returns the static binary that is PID 1 of every machine.
func Agent() ([]byte, error) {
	b, err := files.ReadFile("bin/hale-guest")
	if err != nil {
		return nil, ErrMissing
	}
	return b, nil
}
