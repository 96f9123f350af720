package image

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// A panic in any goroutine that reads or writes an image becomes the error of what it worked for, and harms nothing else: what an image
// can bring is not known, and the daemon has machines to look after.

// A panicked error is a panic that was caught, on its way to who logs it.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panicked: %v", p.value) }

// caught calls f, and makes an error of its panic.
func caught(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, debug.Stack()}
		}
	}()
	return f()
}

// catching is f for another goroutine.
func catching(f func() error) func() error { return func() error { return caught(f) } }

func isPanic(err error) bool {
	_, ok := errors.AsType[*panicked](err)
	return ok
}

// logPanic logs what panicked, if that is what err is. What it returns is not logged again.
func (s *Store) logPanic(err error, what string, args ...any) error {
	p, ok := errors.AsType[*panicked](err)
	if !ok {
		return err
	}
	s.log.Error(what+" panicked", append(args, "error", err, "stack", string(p.stack))...)
	return fmt.Errorf("%s panicked: %v", what, p.value)
}
