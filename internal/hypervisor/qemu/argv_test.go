package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/halevm/hale/internal/hypervisor"
)

var update = flag.Bool("update", false, "write the golden files")

func TestArgv(t *testing.T) {
	with := fds{net: 3, control: 4, bulk: 5, output: 6, console: 7, qmp: 8, lower: 9, upper: 10, kernel: 11, initrd: 12}
	without := with
	without.net = 0
	base := hypervisor.Config{
		Name: "abc", Accel: hypervisor.TCG, VCPUs: 2, Memory: 1 << 30,
		MAC: "02:00:0a:4d:00:02", MTU: 65520,
	}
	kvm := base
	kvm.Accel = hypervisor.KVM
	comma := base
	comma.Name, comma.Cmdline = "a,b", "extra=1"
	for _, c := range []struct {
		name   string
		config hypervisor.Config
		fds    fds
	}{
		{"tcg", base, with},
		{"kvm", kvm, with},
		{"no-network", base, without},
		{"comma", comma, with},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(argv(c.config, c.fds), "\n") + "\n"
			golden := filepath.Join("testdata", "argv-"+c.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the command line differs from %s (run with -update):\n%s", golden, got)
			}
		})
	}
}

func FuzzArgvKeepsItsShape(f *testing.F) {
	f.Add("abc", "02:00:0a:4d:00:02")
	f.Add("a,kvm=on", "x,y")
	f.Fuzz(func(t *testing.T, name, mac string) {
		c := hypervisor.Config{Name: name, Accel: hypervisor.TCG, VCPUs: 1, Memory: 1 << 28, MAC: mac}
		a := argv(c, fds{net: 3, control: 4, bulk: 5, output: 6, console: 7, qmp: 8, lower: 9, upper: 10, kernel: 11, initrd: 12})
		want := argv(hypervisor.Config{Name: "x", Accel: hypervisor.TCG, VCPUs: 1, Memory: 1 << 28, MAC: "x"}, fds{net: 3, control: 4, bulk: 5, output: 6, console: 7, qmp: 8, lower: 9, upper: 10, kernel: 11, initrd: 12})
		if len(a) != len(want) {
			t.Fatalf("%d arguments, not %d", len(a), len(want))
		}
		for i, arg := range a {
			// A doubled comma is none that separates.
			separators := func(s string) int { return strings.Count(strings.ReplaceAll(s, ",,", ""), ",") }
			if separators(arg) != separators(want[i]) {
				t.Errorf("argument %q has other options than %q", arg, want[i])
			}
		}
	})
}
