// Package cli is hale's command line: flags in, tables and JSON out, exit codes that a script can use.
//
// The commands speak to a daemon through sdk/go and nothing else. What needs more than that (serve, setup, token and the like) is
// handed in by the caller of Run as ready commands. One call of Run is one command; it keeps no state between calls and
// may be called from several goroutines with streams of their own.
//
// What came from a guest is printed without control characters, except as the output of logs and exec. There is no colour and no
// moving bar where the stream is not a terminal, and no colour where NO_COLOR is set.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
)

// A Config is what Run needs besides the arguments.
type Config struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string // nil: os.Getenv
	Version        string
	// LocalDaemon finds the daemon of this host where HALE_URL is not set: its address, and a token for it. It is asked when a
	// command needs a daemon, and again when that came back. Its error says what to do.
	LocalDaemon func() (url, token string, err error)
	// RegistryCredentials returns what the person has for the registry of an image, nil for nothing. Programs that keep
	// credentials run only with helpers.
	RegistryCredentials func(ctx context.Context, image string, helpers bool) (*api.RegistryCredentials, error)
	// Raise ends the process as a signal would have that Run caught: a shell goes on with its loop or script after a program that only says 130.
	// nil: Run returns 130.
	Raise func(os.Signal)
	// Commands are added to the ones of this package: serve, setup, doctor, token, shim. They may use cmd.Context(), which
	// ends with SIGINT and SIGTERM, and cmd.OutOrStdout.
	Commands []*cobra.Command
}

// Run runs one command line (without the program's name) and returns the exit code. What went wrong is on Stderr by then.
func Run(args []string, c Config) int {
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	ctx, caught := untilSignal()

	out := &output{Writer: c.Stdout}
	c.Stdout = out
	a := &app{Config: c}
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // never nil, which would be the process's own
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.failure() // what was printed into a full disk is not done
	}
	sig := caught()
	if err != nil && sig != nil && errors.Is(err, context.Canceled) {
		if c.Raise != nil {
			c.Raise(sig)
		}
		return exitInterrupted
	}
	if status, ok := errors.AsType[exitStatus](err); err != nil && !(ok && status.err == nil) {
		a.complain(err)
	}
	return codeOf(err)
}

// untilSignal returns a context that ends with SIGINT and SIGTERM, until caught is called, which returns the signal that came.
func untilSignal() (ctx context.Context, caught func() os.Signal) {
	ctx, cancel := context.WithCancel(context.Background())
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	var sig os.Signal
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case sig = <-signals:
			cancel()
		case <-over:
		}
	})
	return ctx, func() os.Signal {
		signal.Stop(signals)
		close(over)
		wg.Wait()
		cancel()
		return sig
	}
}

// An app is one run of the command line.
type app struct {
	Config
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "hale",
		Short:         "Run OCI images as virtual machines, and know whether they are well",
		Version:       a.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetVersionTemplate("hale {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w (see `%s --help`)", err, cmd.CommandPath())
	})
	root.SetHelpCommand(&cobra.Command{
		Use: "help [COMMAND]", Short: "Say what a command does, and all that it takes",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, _, err := root.Find(args)
			if err != nil || cmd == root && len(args) > 0 {
				return unknownCommand(root, args[0])
			}
			cmd.InitDefaultHelpFlag()
			cmd.InitDefaultVersionFlag()
			return cmd.Help()
		},
	})
	root.AddGroup(
		&cobra.Group{ID: groupInstances, Title: "Instances:"},
		&cobra.Group{ID: groupImages, Title: "Images:"},
		&cobra.Group{ID: groupHost, Title: "This host:"},
	)
	for _, cmd := range a.clientCommands() {
		cmd.Args = usageArgs(cmd.Args)
		root.AddCommand(cmd)
	}
	for _, cmd := range a.Commands {
		cmd.Args = usageArgs(cmd.Args)
		if cmd.GroupID == "" {
			cmd.GroupID = groupHost
		}
		root.AddCommand(cmd)
	}
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "The exit codes that scripts may rely on", Long: exitCodesHelp})
	return root
}

const (
	groupInstances = "instances"
	groupImages    = "images"
	groupHost      = "host"
)

func unknownCommand(root *cobra.Command, name string) error {
	text := fmt.Sprintf("there is no command %q", name)
	if like := root.SuggestionsFor(name); len(like) > 0 {
		text += fmt.Sprintf("; did you mean %q?", like[0])
	}
	return usagef("%s (see `hale help`)", text)
}

// usageArgs makes what check finds a fault of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check == nil {
			check = cobra.NoArgs
		}
		switch err := check(cmd, args); {
		case err == nil:
			return nil
		case len(args) == 0:
			return usagef("something is missing; usage: %s", cmd.UseLine())
		}
		return usagef("%s does not take %s; usage: %s", cmd.CommandPath(), count(len(args), "argument"), cmd.UseLine())
	}
}
