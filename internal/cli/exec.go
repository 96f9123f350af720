package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// execFlags are the flags of exec.
type execFlags struct {
	interactive, tty bool
	ttyGiven         bool
	env              envFlags
	dir, user        string
	timeout, wait    time.Duration
}

func (a *app) execCommand() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use: "exec [flags] NAME CMD...", Short: "Run a program in the guest", GroupID: groupInstances, Args: cobra.MinimumNArgs(2),
		Long: `Run a program in the guest, beside the image's own, and end with its exit code. Where standard input and output are a terminal the program gets one
too (-t=false: not), and input with it; elsewhere -i passes standard input on, which is empty otherwise.

Ends with 124 if the program took longer than --timeout, 125 if hale could not run it, 126 if it is not executable, 127 if there is none.`,
		Example: `  hale exec web sh
  hale exec web cat /etc/os-release
  tar -c . | hale exec -i web tar -x -C /srv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.ttyGiven = cmd.Flags().Changed("tty")
			command := args[1:]
			if command[0] == "--" { // as some write it, between the name and the command
				command = command[1:]
			}
			if len(command) == 0 {
				return usagef("no command is given; usage: %s", cmd.UseLine())
			}
			req, stdin, err := f.request(command, a)
			if err != nil {
				return err
			}
			return a.exec(cmd.Context(), args[0], req, stdin)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the name is the program's
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input on")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give the program a terminal")
	f.env.register(flags)
	flags.StringVarP(&f.dir, "cwd", "w", "", "working directory (the image's)")
	flags.StringVarP(&f.user, "user", "u", "", "user, as name, uid, name:group or uid:gid (the image's)")
	flags.DurationVar(&f.timeout, "timeout", 0, "longest time the program may take, rounded up to seconds; 0: any")
	flags.DurationVar(&f.wait, "wait", 30*time.Second, "longest wait for a machine that is still starting")
	return cmd
}

// request is what the flags ask for, and the input to pass on, nil for none.
func (f *execFlags) request(argv []string, a *app) (req api.ExecRequest, stdin io.Reader, err error) {
	_, inTerminal := terminal(a.Stdin)
	_, outTerminal := terminal(a.Stdout)
	if !f.ttyGiven && inTerminal && outTerminal {
		f.tty, f.interactive = true, true
	}
	if f.interactive {
		stdin = a.Stdin
	}
	if f.timeout < 0 || f.wait < 0 {
		return req, nil, usagef("--timeout and --wait are 0 or more")
	}
	req = api.ExecRequest{Command: argv, TTY: f.tty, Cwd: f.dir, User: f.user, Timeout: seconds(f.timeout), WaitForAgent: seconds(f.wait)}
	if req.Env, err = f.env.read(a.Getenv); err != nil {
		return req, nil, err
	}
	if f.tty {
		req.Rows, req.Cols = windowSize(a.Stdout)
		if term := a.Getenv("TERM"); term != "" && req.Env["TERM"] == "" {
			req.Env["TERM"] = term
		}
	}
	return req, stdin, nil
}

// seconds is d in whole seconds, rounded up, as the API counts.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// exec runs a program and returns how it ended as an exitStatus. The terminal is as it was before on return.
func (a *app) exec(ctx context.Context, name string, req api.ExecRequest, stdin io.Reader) error {
	c, err := a.client()
	if err != nil {
		return exitStatus{exitExecFailed, err}
	}
	exit, err := a.runExec(ctx, c, name, req, stdin)
	switch {
	case err != nil:
		return exitStatus{exitExecFailed, err}
	case exit.Code == 0:
		return nil
	case exit.TimedOut && exit.Message != "": // the guest did not end it
		return exitStatus{exit.Code, errors.New(exit.Message)}
	case exit.TimedOut:
		return exitStatus{exit.Code, fmt.Errorf("it took longer than %v and was killed", time.Duration(req.Timeout)*time.Second)}
	case exit.Message != "":
		return exitStatus{exit.Code, errors.New(exit.Message)}
	}
	return exitStatus{code: exit.Code}
}

func (a *app) runExec(ctx context.Context, c *hale.Client, name string, req api.ExecRequest, stdin io.Reader) (hale.ExecExit, error) {
	e, err := c.Exec(ctx, name, req)
	if err != nil {
		return hale.ExecExit{}, err
	}
	defer e.Close()
	if req.TTY && stdin != nil {
		restore, err := makeRaw(stdin)
		if err != nil {
			return hale.ExecExit{}, err
		}
		defer restore()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if req.TTY {
		go onResize(ctx, a.Stdout, func(rows, cols uint16) { e.Resize(rows, cols) })
	}
	if stdin == nil {
		e.CloseWrite()
	} else {
		go func() { // a read of a terminal cannot be ended: this ends with the process, or with the next key
			io.Copy(e, stdin)
			e.CloseWrite()
		}()
	}
	exit, err := e.Copy(a.Stdout, a.Stderr)
	if req.TTY && (err != nil || exit.TimedOut) {
		io.WriteString(a.Stderr, "\r\n") // what is said next begins a line, wherever the program left the cursor
	}
	return exit, err
}
