package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// The exit codes, which scripts may rely on. `exec` ends with the code of the program it ran, or with one of 124 … 127.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2   // the command, or a value in it, is wrong
	exitNotFound    = 3   // no such instance, image or file
	exitConflict    = 4   // a name in use, not possible in this state, or no room on the host
	exitTimeout     = 5   // the time to wait is over, or what was waited for cannot come any more
	exitUnreachable = 6   // the daemon does not answer
	exitExecTimeout = 124 // the program took longer than --timeout
	exitExecFailed  = 125 // hale could not run the program
	exitNotRunnable = 126 // the program is not executable
	exitNoProgram   = 127 // there is no such program
	exitInterrupted = 130 // Ctrl-C
)

const exitCodesHelp = `Exit codes of hale:

    0  done
    1  an error that is none of the others
    2  the command, or a value in it, is wrong
    3  no such instance, image or file
    4  a name that is in use, not possible in this state, no room on the host, or a registry that was asked too often
    5  the time to wait is over, or what was waited for cannot come any more
    6  the daemon does not answer, or has no room for one more request
  130  interrupted by Ctrl-C

'hale exec' ends with the exit code of the program it ran, or with

  124  the program took longer than --timeout
  125  hale could not run it: any of the errors above
  126  the program is not executable
  127  there is no such program
`

// A usageError is the fault of who typed the command.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// An exitStatus ends the program with a code. What there was to say may have been said already: err may be nil.
type exitStatus struct {
	code int
	err  error
}

func (e exitStatus) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}
func (e exitStatus) Unwrap() error { return e.err }

var kindCodes = map[api.Kind]int{
	api.Invalid:      exitUsage,
	api.Unsupported:  exitUsage,
	api.TooLarge:     exitUsage,
	api.NotFound:     exitNotFound,
	api.Conflict:     exitConflict,
	api.InvalidState: exitConflict,
	api.NotReady:     exitConflict,
	api.Exhausted:    exitConflict,
	api.RateLimited:  exitConflict,
	api.Unavailable:  exitUnreachable,
}

// codeOf maps an error to the exit code.
func codeOf(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[exitStatus](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*hale.UnreachableError](err); ok {
		return exitUnreachable
	}
	if foreign(err) {
		return exitUnreachable
	}
	if e, ok := errors.AsType[*hale.Error](err); ok && (e.Code == "registry_unavailable" || e.Code == "pull_stalled") {
		return exitError // the daemon answers: it is the registry that does not
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitTimeout
	}
	if kind, ok := errors.AsType[api.Kind](err); ok {
		if code, ok := kindCodes[kind]; ok {
			return code
		}
	}
	return exitError
}

// foreign reports whether something else than a daemon said that there is nothing: a proxy before it, or whatever else listens there.
func foreign(err error) bool {
	e, ok := errors.AsType[*hale.Error](err)
	return ok && e.Status == http.StatusNotFound && e.Code == ""
}

// gone reports whether a daemon said that there is no such thing.
func gone(err error) bool { return errors.Is(err, api.NotFound) && !foreign(err) }
