package cli

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// createFlags are the flags of run and create.
type createFlags struct {
	check      checkFlags
	env        envFlags
	name       string
	ports      []string
	memory     string
	overlay    string
	cpus       int
	tags       []string
	entrypoint string
	noNetwork  bool
	noOutbound bool
	allowNets  []string
	ttl        time.Duration
	wait       bool
	timeout    time.Duration
	json       bool
	quiet      bool
	pull       string
	helpers    bool
}

// otherNames are what some flags are called elsewhere.
var otherNames = map[string]string{"size": "memory", "label": "tag"}

func (f *createFlags) register(flags *pflag.FlagSet) {
	flags.SetInterspersed(false) // what follows the image is the program's
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if other, ok := otherNames[name]; ok {
			name = other
		}
		return pflag.NormalizedName(name)
	})
	flags.StringVar(&f.name, "name", "", "the instance's name (made from the image's)")
	flags.StringArrayVarP(&f.ports, "publish", "p", nil, "publish a port of the guest: `[ADDR:][HOST:]GUEST`; loopback unless an address is named")
	f.env.register(flags)
	flags.StringVarP(&f.memory, "memory", "m", "", "memory (1GB; also --size)")
	flags.StringVar(&f.overlay, "overlay", "", "size of the writable layer (10GB)")
	flags.IntVar(&f.cpus, "cpus", 0, "virtual processors (2)")
	flags.StringArrayVar(&f.tags, "tag", nil, "a tag, `KEY=VALUE` (also --label)")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "the program instead of the image's: words or a `JSON array`")
	flags.BoolVar(&f.noNetwork, "no-network", false, "no network")
	flags.StringArrayVar(&f.allowNets, "allow-net", nil, "let it reach a private `RANGE`, such as 192.168.1.0/24, or several separated by commas; public addresses it reaches anyway")
	flags.BoolVar(&f.noOutbound, "no-outbound", false, "let it reach nothing outside; published ports and checks go on")
	flags.DurationVar(&f.ttl, "ttl", 0, "delete the instance after this long")
	f.check.register(flags)
	flags.StringVar(&f.pull, "pull", "missing", "pull the image: missing or always")
	flags.BoolVar(&f.helpers, "credential-helpers", false, "run the programs that docker's configuration names for credentials")
	flags.BoolVarP(&f.wait, "wait", "w", false, "wait until it is healthy, or runs where it has no check")
	flags.DurationVar(&f.timeout, "timeout", 2*time.Minute, "longest time to --wait")
	flags.BoolVar(&f.json, "json", false, "print the instance as JSON")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print the id only")
	flags.BoolP("detach", "d", true, "an instance always runs in the background")
	flags.MarkHidden("detach")
}

func (a *app) createCommand(use string) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:     use + " [flags] IMAGE [CMD...]",
		Short:   "Make an instance of an image and start it",
		GroupID: groupInstances,
		Args:    cobra.MinimumNArgs(1),
		Example: `  hale run --name web -p 8080:80 --health-http :80/ nginx
  hale run --wait -e POSTGRES_PASSWORD=x --health-cmd 'pg_isready -q' postgres
  hale run --memory 512MB --ttl 1h alpine sleep 600`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(args, a.Getenv)
			if err != nil {
				return err
			}
			return a.create(cmd.Context(), f, req)
		},
	}
	if use == "create" {
		cmd.Short = "Another name of run"
		cmd.Long = "Make an instance of an image and start it: another name of `hale run`.\n\nThere is no instance that was made and never started; `hale stop` keeps one for later."
	}
	f.register(cmd.Flags())
	return cmd
}

// request is what the flags and arguments ask for.
func (f *createFlags) request(args []string, getenv func(string) string) (req api.CreateInstanceRequest, err error) {
	if f.pull != "missing" && f.pull != "always" {
		return req, usagef("--pull %q: missing or always", f.pull)
	}
	if f.timeout < 0 {
		return req, usagef("--timeout is 0 or more")
	}
	req.Image, req.Name = args[0], f.name
	if req.Name == "" {
		req.Name = nameFor(req.Image)
	}
	if len(args) > 1 && args[1] == "--" { // as some write it, between the image and its command
		args = args[1:]
	}
	if len(args) > 1 {
		req.Cmd = args[1:]
	}
	if f.entrypoint != "" {
		if req.Entrypoint, err = parseArgv("--entrypoint", f.entrypoint); err != nil {
			return req, err
		}
	}
	if req.Env, err = f.env.read(getenv); err != nil {
		return req, err
	}
	if req.Tags, err = keyValues("--tag", f.tags); err != nil {
		return req, err
	}
	if req.HealthCheck, req.HealthCheckOverride, err = f.check.check(); err != nil {
		return req, err
	}
	if req.Network, err = f.network(); err != nil {
		return req, err
	}
	req.Size, req.OverlaySize = f.memory, f.overlay
	if f.cpus != 0 {
		req.VCPUs = &f.cpus
	}
	if f.ttl != 0 {
		req.TTL = ptr(f.ttl.String())
	}
	return req, nil
}

func (f *createFlags) network() (*api.InstanceNetworkRequest, error) {
	if f.noNetwork && len(f.ports) > 0 {
		return nil, usagef("--publish needs the network that --no-network leaves out")
	}
	if len(f.allowNets) > 0 && (f.noNetwork || f.noOutbound) {
		return nil, usagef("--allow-net needs the traffic to the outside that --no-network and --no-outbound leave out")
	}
	if f.noNetwork {
		return &api.InstanceNetworkRequest{Enabled: ptr(false)}, nil
	}
	if len(f.ports) == 0 && len(f.allowNets) == 0 && !f.noOutbound {
		return nil, nil
	}
	n := new(api.InstanceNetworkRequest)
	for _, s := range f.allowNets {
		for r := range strings.SplitSeq(s, ",") {
			n.Allow = append(n.Allow, strings.TrimSpace(r))
		}
	}
	if f.noOutbound {
		n.Outbound = ptr(false)
	}
	for _, s := range f.ports {
		p, err := parsePublish(s)
		if err != nil {
			return nil, err
		}
		n.Ports = append(n.Ports, p)
	}
	return n, nil
}

// parsePublish reads GUEST, HOST:GUEST, ADDR:HOST:GUEST and ADDR::GUEST, each with /tcp or without. No host port is a free one.
func parsePublish(s string) (p api.PortMapping, err error) {
	const how = "write [ADDR:][HOST:]GUEST, as in 8080:80"
	text, protocol, _ := strings.Cut(s, "/")
	if protocol != "" && protocol != "tcp" {
		return p, usagef("--publish %q: only TCP ports can be published", s)
	}
	host, guest := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		host, guest = text[:i], text[i+1:]
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		addr, err := netip.ParseAddr(strings.Trim(host[:i], "[]"))
		if err != nil {
			return p, usagef("--publish %q: %q is not an IP address; %s", s, host[:i], how)
		}
		p.HostAddr, host = addr.String(), host[i+1:]
	}
	if p.GuestPort, err = parsePort("--publish", guest); err != nil {
		return p, usagef("%w; %s", err, how)
	}
	if host != "" {
		if host == "0" { // a free one, as without it
			return p, nil
		}
		if p.HostPort, err = parsePort("--publish", host); err != nil {
			return p, usagef("%w; %s", err, how)
		}
	}
	return p, nil
}

// nameFor makes a name from an image's: "nginx-4k2p".
func nameFor(image string) string {
	base := path.Base(image)
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, ":")
	base = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, base)
	if base = strings.Trim(base, "-"); base == "" {
		base = "instance"
	}
	if len(base) > 50 {
		base = strings.TrimRight(base[:50], "-")
	}
	return base + "-" + strings.ToLower(rand.Text()[:4])
}

// envFlags are -e and --env-file.
type envFlags struct {
	values, files []string
}

func (f *envFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&f.values, "env", "e", nil, "an environment variable, `KEY=VALUE`, or KEY to pass one's own on, if there is one")
	flags.StringArrayVar(&f.files, "env-file", nil, "read variables from a `file`, one KEY=VALUE on a line")
}

// read merges the files, in order, and then the flags.
func (f *envFlags) read(getenv func(string) string) (map[string]string, error) {
	env := map[string]string{}
	set := func(where, s string) error {
		key, value, ok := strings.Cut(s, "=")
		if key == "" {
			return usagef("%s: %q is not KEY=VALUE", where, s)
		}
		if !ok {
			if value = getenv(key); value == "" {
				return nil // what there is none of does not hide the image's own
			}
		}
		env[key] = value
		return nil
	}
	for _, name := range f.files {
		if err := eachLine(name, func(line string) error { return set(name, line) }); err != nil {
			return nil, err
		}
	}
	for _, s := range f.values {
		if err := set("--env", s); err != nil {
			return nil, err
		}
	}
	return env, nil
}

// eachLine calls do with the lines of a file that are not empty and no comment.
func eachLine(name string, do func(line string) error) error {
	f, err := os.Open(name)
	if err != nil {
		return fileError(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := do(line); err != nil {
			return err
		}
	}
	return lines.Err()
}

func keyValues(flag string, list []string) (map[string]string, error) {
	m := make(map[string]string, len(list))
	for _, s := range list {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, usagef("%s: %q is not KEY=VALUE", flag, s)
		}
		m[key] = value
	}
	return m, nil
}

func (a *app) create(ctx context.Context, f createFlags, req api.CreateInstanceRequest) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	began := time.Now()
	inst, err := a.createWhenReady(ctx, c, f, req)
	if err != nil && ctx.Err() != nil {
		a.leaveImage(ctx, req.Image)
		a.leave(ctx, req.Name, began)
		return ctx.Err()
	} else if err != nil {
		return f.check.explain(err)
	}
	if f.wait {
		target := awaited{health: api.HealthStateHealthy}
		if noCheck(inst) {
			target = awaited{state: api.InstanceStateRunning}
		}
		if err := a.await(ctx, inst, target, f.timeout); err != nil && ctx.Err() != nil {
			a.leave(ctx, inst.ID, time.Time{})
			return ctx.Err()
		} else if err != nil {
			if why, ok := strings.CutPrefix(err.Error(), inst.Name+" "); ok { // it need not be named twice
				return exitStatus{codeOf(err), fmt.Errorf("%s was made, but %s", inst.Name, why)}
			}
			return fmt.Errorf("%s was made, but %w", inst.Name, err)
		}
		if c, err = a.client(); err == nil { // the daemon may have come back at another address
			inst, err = c.Instance(ctx, inst.ID)
		}
		if err != nil {
			return err
		}
		if inst.State == api.InstanceStateStopped {
			fmt.Fprintf(a.Stderr, "hale: %s ran, and has ended: %s\n", inst.Name, oneLine(cmp.Or(inst.ExitMessage, inst.ExitReason)))
		}
	}
	switch {
	case f.json:
		return a.printJSON(inst)
	case f.quiet:
		fmt.Fprintln(a.Stdout, inst.ID)
	default:
		fmt.Fprintln(a.Stdout, inst.Name)
		a.hint(nextSteps(inst))
	}
	return nil
}

// leaveTime is how long a command that was interrupted looks for what it leaves.
const leaveTime = 2 * time.Second

// leave says, after Ctrl-C, that an instance is there and goes on. One that is older than the command is somebody else's.
func (a *app) leave(ctx context.Context, ref string, began time.Time) {
	c, err := a.client()
	if err != nil {
		return
	}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	if inst, err := c.Instance(look, ref); err == nil && !inst.CreatedAt.Before(began) {
		fmt.Fprintf(a.Stderr, "hale: %[1]s was made, is %[2]s, and goes on without this command; `hale rm %[1]s` deletes it\n", inst.Name, inst.State)
	}
}

// createWhenReady creates, and pulls before what is not here, or waits for it.
func (a *app) createWhenReady(ctx context.Context, c *hale.Client, f createFlags, req api.CreateInstanceRequest) (inst api.Instance, err error) {
	img, err := c.Image(ctx, req.Image, 0)
	refused, ok := errors.AsType[*hale.Error](err)
	absent := ok && refused.Code == "image_not_found"
	if f.pull == "always" || absent || err == nil && img.Status != api.ImageStatusReady { // told before the image is waited for, and not after it
		if other, err := c.Instance(ctx, req.Name); err == nil && other.Name == req.Name {
			return inst, exitStatus{exitConflict, fmt.Errorf("the name %q is taken by instance %s", other.Name, other.ID)}
		}
	}
	if f.pull == "always" || absent || err == nil && img.Status == api.ImageStatusFailed { // any other error the create meets too
		if _, err := a.pull(ctx, c, pullRequest{name: req.Image, helpers: f.helpers, quiet: f.quiet}); err != nil {
			return inst, err
		}
	}
	for {
		if c, err = a.client(); err != nil { // the daemon may have come back at another address meanwhile
			return inst, err
		}
		inst, err = c.CreateInstance(ctx, req)
		if !errors.Is(err, api.NotReady) {
			return inst, err
		}
		if err := a.watchImage(ctx, c, req.Image, f.quiet); err != nil {
			return inst, err
		}
	}
}

func nextSteps(inst api.Instance) string {
	if inst.State == api.InstanceStateStopped {
		return fmt.Sprintf("  hale logs %[1]s     what it said\n  hale start %[1]s", inst.Name)
	}
	s := fmt.Sprintf("  hale health %[1]s     how it is\n  hale logs -f %[1]s    what it says\n  hale exec -it %[1]s sh", inst.Name)
	for _, p := range portsOf(inst) {
		s += fmt.Sprintf("\n  port %d of it is at %s", p.GuestPort, hostAddr(p))
	}
	return s
}
