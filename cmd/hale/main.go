// Command hale runs OCI images as virtual machines and knows whether the work inside is well: the command line, `hale
// serve` the daemon, and `hale shim` beside each machine are this one program.
package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/internal/cli"
	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim"
	"github.com/halevm/hale/internal/shim/protocol"
	"github.com/halevm/hale/internal/version"
)

func main() { os.Exit(run(os.Args[1:])) }

// newQEMU is the hypervisor of a shim.
func newQEMU(c protocol.Config, log *slog.Logger) shim.Hypervisor {
	return qemu.New(c.QEMU, sandbox.Confinement{Namespaces: c.Sandbox.Namespaces, Landlock: c.Sandbox.Landlock, Seccomp: c.Sandbox.Seccomp}, log)
}

// run is main without the exit, for the tests of the command line.
func run(args []string) int {
	// The programs beside the daemon come first: they know neither flags nor configuration.
	if len(args) > 0 {
		switch args[0] {
		case shim.Command:
			return shim.Main(os.Stdin, newQEMU)
		case qemu.ProbeCommand:
			return qemu.ProbeKVM()
		}
	}
	var s settings
	return cli.Run(args, cli.Config{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Version: version.String(), Raise: raise,
		LocalDaemon: s.localDaemon, RegistryCredentials: registryCredentials,
		Commands: []*cobra.Command{s.serveCommand(), s.setupCommand(), s.doctorCommand(), s.tokenCommand()},
	})
}

// raise ends the process by a signal.
func raise(sig os.Signal) {
	signal.Reset(sig)
	syscall.Kill(os.Getpid(), sig.(syscall.Signal))
	time.Sleep(time.Second) // it may take a moment to come, and where the parent has it ignored it never does
}
