//go:build e2e

package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/instance/drivertest"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim"
	"github.com/halevm/hale/internal/shim/protocol"
)

// TestMain is the shim's process too: a shim is the same program as its daemon, and here that is the test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == shim.Command {
		os.Exit(shim.Main(os.Stdin, func(c protocol.Config, log *slog.Logger) shim.Hypervisor {
			return qemu.New(c.QEMU, sandbox.Confinement{Namespaces: c.Sandbox.Namespaces, Landlock: c.Sandbox.Landlock, Seccomp: c.Sandbox.Seccomp}, log)
		}))
	}
	os.Exit(m.Run())
}

// The real driver passes what the fake one passes.
func TestConformance(t *testing.T) {
	disk := debianDisk(t)
	p := &platform{kernel: kernelDir(t), uids: sandbox.DefaultRange}
	driver := shimDriver{shim.NewLauncher(p.find, "test", slog.New(slog.DiscardHandler))}
	machines := 0
	drivertest.Test(t, func(t *testing.T) drivertest.Env {
		machines++
		return drivertest.Env{
			Driver: driver,
			Config: func(t *testing.T, program drivertest.Program) machine.Config {
				return machineConfig(t, disk, machines, program)
			},
			Patience: 90 * time.Second,
			Keeps:    []string{"run/exit.json", "run/shim.stderr", "run"},
		}
	})
	fmt.Printf("machines booted: %d\n", machines)
}

func machineConfig(t *testing.T, disk string, n int, program drivertest.Program) machine.Config {
	argv := map[drivertest.Program][]string{
		drivertest.Sleep:    {"sleep", "infinity"},
		drivertest.Exit3:    {"sh", "-c", "exit 3"},
		drivertest.NotFound: {"/no/such/program"},
		drivertest.Hang:     {"sleep", "infinity"},
	}[program]
	stopSignal := ""
	if program == drivertest.Hang {
		stopSignal = "SIGWINCH" // which a program that does not handle it ignores, from its first moment on
	}
	// As in a daemon's tree: the record of the shim lies beside the machine's directory.
	dir := filepath.Join(t.TempDir(), "vm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return machine.Config{
		ID: fmt.Sprintf("conformance%d", n), Dir: dir, RootDisk: disk, VCPUs: 1, Memory: 256 << 20, Overlay: 1 << 30, Hostname: "test",
		Network: &machine.Network{Addr: netip.MustParsePrefix("10.77.0.2/16"), MAC: "02:00:0a:4d:00:02"},
		Process: machine.Process{Argv: argv, Env: []string{"A=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, StopSignal: stopSignal},
	}
}

func kernelDir(t *testing.T) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(os.Getenv("HALE_E2E_KERNELS"), "linux-*"))
	if err != nil || len(dirs) == 0 {
		t.Fatal("run this test with `make e2e`, which gets what it needs")
	}
	return dirs[0]
}

// debianDisk makes a disk of the root file system that the end-to-end tests have.
func debianDisk(t *testing.T) string {
	t.Helper()
	rootfs := os.Getenv("HALE_E2E_NGINX")
	if rootfs == "" {
		t.Fatal("run this test with `make e2e`, which gets what it needs")
	}
	layer, err := tarball.LayerFromFile(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", "amd64", v1.Config{Cmd: []string{"sh"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("conformance/debian:latest")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(filepath.Join(t.TempDir(), "images"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images, err := store.Import(t.Context(), f, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(images[0].Ref, "conformance/debian:latest") {
		t.Errorf("the image is called %s", images[0].Ref)
	}
	return images[0].Disk
}
