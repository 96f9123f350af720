// Command bench measures hale on this host, each figure beside a reference that is measured in the same run, and writes one
// Markdown table with them below bench/results. It judges nothing: bounds stand beside the figures, and a bound that is not
// met fails nothing.
//
//	make bench                      everything, in about half an hour
//	make bench ONLY=boot,image      some of it
//	make bench ONLY=boot AGAINST=X  its boots beside those of X, another build of hale
//
// bench/run.sh gets what is missing and says where it is. Nothing of it leaves the host: what is measured to the outside
// lies in network namespaces that the bench makes for itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The machines of all benches.
const (
	machineMemory = 256 << 20
	machineVCPUs  = 2
	bootPatience  = 90 * time.Second
)

// A bench is one subject. What it measures it adds to the report.
type bench struct {
	name string
	run  func(context.Context, *site) error
}

// In the order of the table. The quiet ones come before those that leave the host's caches in disorder.
var benches = []bench{
	{"boot", benchBoot},
	{"rest", benchRest},
	{"traffic", benchTraffic},
	{"outbound", benchOutbound},
	{"image", benchImage},
	{"cli", benchCLI},
	{"hints", benchHints},
	{"engine", benchEngine},
	{"lag", benchLag},
	{"memory", benchMemory},
	{"start", benchStart},
	{"product", benchProduct},
	{"restart", benchRestart},
	{"starved", benchStarved},
}

// byName are those that are run only where their name is given.
var byName = []bench{{"soak", benchSoak}}

// A site is where the benches run and what they have.
type site struct {
	binary  string // of hale
	kernels string
	nginx   string // the program
	haproxy string // where its package and its libraries are unpacked
	against string // another build of hale, to compare boots with; "": none
	rootfs  string // a root file system, as a tar
	guest   string // the guest's program
	dir     string // for everything that is made
	image   string // an archive with the guest's program
	report  *report
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == insideCommand {
		os.Exit(inside(ctx, os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == helperCommand {
		os.Exit(help(os.Args[2:]))
	}
	var s site
	flag.StringVar(&s.binary, "hale", "bin/hale", "the program to measure")
	flag.StringVar(&s.kernels, "kernels", ".cache/hale/kernels", "where hale setup left the guest's kernel")
	flag.StringVar(&s.rootfs, "rootfs", ".cache/images/nginx-rootfs.tar", "a root file system to make an image of")
	flag.StringVar(&s.against, "against", "", "another build of hale, whose boots are measured beside")
	flag.StringVar(&s.nginx, "nginx", ".cache/nginx/usr/sbin/nginx", "the program")
	flag.StringVar(&s.haproxy, "haproxy", ".cache/haproxy", "where its package is unpacked")
	results := flag.String("results", "bench/results", "directory for the table")
	only := flag.String("only", "", "names of benches, separated by commas (default all)")
	flag.Parse()
	if err := run(ctx, &s, *results, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *site, results, only string) (err error) {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	for _, p := range []*string{&s.binary, &s.kernels, &s.rootfs, &s.nginx, &s.haproxy, &s.against} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if s.dir, err = os.MkdirTemp("", "hale-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	if err := os.Chmod(s.dir, 0o711); err != nil { // machines of root's have uids of their own
		return err
	}
	if err := s.build(ctx); err != nil {
		return err
	}
	if s.report, err = newReport(ctx); err != nil {
		return err
	}
	for _, b := range chosen {
		began := time.Now()
		fmt.Fprintf(os.Stderr, "== %s\n", b.name)
		if err := b.run(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		fmt.Fprintf(os.Stderr, "   took %v\n", time.Since(began).Round(100*time.Millisecond))
	}
	text := s.report.markdown()
	fmt.Print(text)
	if only != "" || s.against != "" {
		return nil // not a table to keep
	}
	path, err := s.report.write(results, text)
	if err == nil {
		fmt.Fprintln(os.Stderr, "written to", path)
	}
	return err
}

func choose(only string) ([]bench, error) {
	if only == "" {
		return benches, nil
	}
	var chosen []bench
	for name := range strings.SplitSeq(only, ",") {
		all := slices.Concat(benches, byName)
		i := slices.IndexFunc(all, func(b bench) bool { return b.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no bench %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// build makes the guest's program and its image.
func (s *site) build(ctx context.Context) error {
	s.guest = filepath.Join(s.dir, "guest")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.guest, "github.com/halevm/hale/bench/guest")
	cmd.Dir, cmd.Env = "bench", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest's program: %w: %s", err, out)
	}
	layer := s.guest + ".tar"
	if err := tarProgram(layer, s.guest); err != nil {
		return err
	}
	s.image = filepath.Join(s.dir, "guest-image.tar")
	return writeArchive(s.image, "bench/guest:latest", []string{"/guest", "serve"}, layer)
}

// withDaemon runs do with a daemon that has the guest's image, and ends it with everything in it.
func (s *site) withDaemon(ctx context.Context, name string, do func(*daemon) error) (err error) {
	d, err := startDaemon(s.binary, s.kernels, filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if _, err := d.load(ctx, s.image); err != nil {
		return err
	}
	return do(d)
}
