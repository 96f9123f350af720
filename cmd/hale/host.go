package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/daemon"
	"github.com/halevm/hale/internal/egress"
	"github.com/halevm/hale/internal/host"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/slack"
	"github.com/halevm/hale/internal/token"
)

func (s *settings) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground, until SIGINT or SIGTERM. Machines go on running without it, and the next daemon
with the same data directory takes them back.

It prints one line on standard output when it is ready; its log is on standard error. Every flag can be said as well by a
variable (HALE_LISTEN for --listen) or in the configuration file (listen: …).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What whoever started it left open is no machine's.
			if err := sandbox.KeepFromChildren(3); err != nil {
				return fmt.Errorf("close descriptors for children: %w", err)
			}
			if err := slack.Set(slack.Probing); err != nil {
				return fmt.Errorf("let timers fire together: %w", err)
			}
			go slack.Processors(cmd.Context())
			if err := s.resolve(); err != nil {
				return err
			}
			if _, _, err := net.SplitHostPort(s.Listen); err != nil {
				return fmt.Errorf("listen %q: want an address and a port, such as %s: %w", s.Listen, defaultListen, api.Invalid)
			}
			switch s.Accel {
			case "", "auto", "kvm", "tcg":
			default:
				return fmt.Errorf("accel %q: one of auto, kvm, tcg: %w", s.Accel, api.Invalid)
			}
			log, err := newLog(cmd.ErrOrStderr(), s.LogLevel)
			if err != nil {
				return err
			}
			allow, err := egress.ParseRanges(s.AllowNet)
			if err != nil {
				return fmt.Errorf("allow-net: %v: %w", err, api.Invalid)
			}
			retries, err := s.bootRetries()
			if err != nil {
				return err
			}
			registries, err := s.registries()
			if err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), daemon.Config{
				DataDir: s.DataDir, Listen: s.Listen, Driver: s.Driver, Accel: s.Accel, Kernel: s.Kernel, Log: log,
				AllowNets: allow, Registries: registries, Sandbox: s.Sandbox, UIDs: s.UIDs, BootRetries: retries,
				Ready: func(url string) {
					fmt.Fprintf(cmd.OutOrStdout(), "hale is ready at %s (data in %s)\n", url, s.DataDir)
					if err := notifyReady(); err != nil {
						log.Warn("the service manager cannot be told that the daemon is ready", "err", err)
					}
				},
			})
		},
	}
	s.addDataDir(cmd)
	f := cmd.Flags()
	f.StringVar(&s.Listen, "listen", "", "address to listen on; port 0 asks for a free one (default "+defaultListen+")")
	f.StringVar(&s.Accel, "accel", "", "auto, kvm or tcg (default auto: by trying it)")
	f.StringVar(&s.Kernel, "kernel", "", "directory with a kernel for the guests: vmlinuz and lib/modules/VERSION (default: the one of hale setup)")
	f.StringVar(&s.Sandbox, "sandbox", "", "auto: what this host has of it, or require: all of it, or no machine is started (default auto)")
	f.StringVar(&s.UIDs, "uids", "", "FIRST-LAST: the uids, and gids, that root's machines have one of each (default "+sandbox.DefaultRange.String()+")")
	f.StringVar(&s.AllowNet, "allow-net", "", "private `RANGES` that all instances may reach, separated by commas, such as 192.168.1.0/24 (default none)")
	f.StringVar(&s.BootRetries, "boot-retries", "", fmt.Sprintf("how often a machine is booted again that ended before its agent said a word: `N`, 0 to %d (default %d)", mostBootRetries, defaultBootRetries))
	f.StringVar(&s.RegistryConfig, "registry-config", "", "`file` with credentials for registries, as docker login writes it (default $DOCKER_CONFIG/config.json, else ~/.docker/config.json); none is none")
	f.StringVar(&s.CredentialHelpers, "credential-helpers", "", "true lets the programs run that it names for credentials (default false)")
	f.Lookup("credential-helpers").NoOptDefVal = "true"
	f.StringVar(&s.LogLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&s.Driver, "driver", "", "qemu, or fake for tests")
	f.MarkHidden("driver")
	return cmd
}

// How often a boot that stayed silent is tried again.
const (
	defaultBootRetries = 1
	mostBootRetries    = 5
)

func (s *settings) bootRetries() (int, error) {
	if s.BootRetries == "" {
		return defaultBootRetries, nil
	}
	n, err := strconv.Atoi(s.BootRetries)
	if err != nil || n < 0 || n > mostBootRetries {
		return 0, fmt.Errorf("boot-retries %q: a number from 0 to %d: %w", s.BootRetries, mostBootRetries, api.Invalid)
	}
	return n, nil
}

func newLog(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("log level %q: one of debug, info, warn, error: %w", level, api.Invalid)
		}
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

func (s *settings) setupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Get what this host is missing to run machines",
		Long: `Get what this host is missing to run machines: QEMU and e2fsprogs through the package manager (as root, or through
sudo), and a kernel for the guests into the data directory, with the host's own apt sources and keys. The kernel is never
installed, and nothing else of the host is touched. What is there already is left alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.resolve(); err != nil {
				return err
			}
			return host.Setup(cmd.Context(), s.DataDir, func(line string) { fmt.Fprintln(cmd.OutOrStdout(), line) })
		},
	}
	s.addDataDir(cmd)
	return cmd
}

// errUnfit makes the exit code of a doctor that found something tell.
var errUnfit = errors.New("this host cannot run machines yet: see above")

func (s *settings) doctorCommand() *cobra.Command {
	var asJSON, leaks bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, and what to mend",
		Long: `Say what this host can do, and what to mend.

With --leaks it says instead what the processes of the data directory hold (processes, sockets, files, uids), and what is left over
and by whom; it ends with 1 where something is. What machines have open is seen by root only.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.resolve(); err != nil {
				return err
			}
			if leaks {
				return doctorOfLeaks(cmd.OutOrStdout(), s.DataDir, asJSON)
			}
			uids, err := sandbox.ParseRange(s.UIDs)
			if err != nil {
				return err
			}
			checks := host.Doctor(cmd.Context(), s.DataDir, uids)
			if err := printChecks(cmd.OutOrStdout(), checks, asJSON); err != nil {
				return err
			}
			for _, c := range checks {
				if c.Verdict == host.Fail {
					return errUnfit
				}
			}
			return nil
		},
	}
	s.addDataDir(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&leaks, "leaks", false, "say what the data directory's processes hold, and what is left over")
	return cmd
}

func printChecks(w io.Writer, checks []host.Check, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(checks)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.Verdict, c.Name, c.Detail)
		if c.Mend != "" {
			fmt.Fprintf(t, "\t\t→ %s\n", c.Mend)
		}
	}
	return t.Flush()
}

func (s *settings) tokenCommand() *cobra.Command {
	var ttl time.Duration
	var rotate bool
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a bearer token for the daemon of this data directory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.resolve(); err != nil {
				return err
			}
			if ttl <= 0 {
				return fmt.Errorf("ttl %v: a token that is good for no time is none: %w", ttl, api.Invalid)
			}
			// One that is made here would have a secret that no daemon knows.
			if _, err := os.Stat(s.DataDir); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no data directory %s (the daemon makes it: hale serve): %w", s.DataDir, api.NotFound)
			}
			secretOf := token.LoadOrCreate
			if rotate {
				secretOf = token.Rotate
			}
			secret, err := secretOf(s.DataDir)
			if err != nil {
				return err
			}
			t, err := secret.Mint(time.Now(), ttl)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), t)
			return nil
		},
	}
	s.addDataDir(cmd)
	cmd.Flags().DurationVar(&ttl, "ttl", token.DefaultTTL, "how long the token is good for")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make a new secret first, which ends every token there is")
	return cmd
}
