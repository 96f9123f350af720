package pid1

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
)

func TestHosts(t *testing.T) {
	n := &protocol.Network{Addr: netip.MustParsePrefix("10.77.0.2/24"), Gateway: netip.MustParseAddr("10.77.0.1")}
	for name, c := range map[string]struct {
		b    protocol.Boot
		want string
	}{
		"with a network":    {protocol.Boot{Hostname: "web-1", Network: n}, "10.77.0.2\tweb-1\n"},
		"without a network": {protocol.Boot{Hostname: "web-1"}, "127.0.1.1\tweb-1\n"},
		"without a name":    {protocol.Boot{Network: n}, "ip6-loopback\n"},
	} {
		if got := string(hosts(c.b)); !strings.HasPrefix(got, "127.0.0.1\tlocalhost\n") || !strings.HasSuffix(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	os.WriteFile(outside, []byte("not to be touched"), 0o644)
	for name, before := range map[string]func(path string){
		"nothing":         func(string) {},
		"no directory":    func(p string) { os.RemoveAll(filepath.Dir(p)) },
		"a file":          func(p string) { os.WriteFile(p, []byte("old"), 0o600) },
		"a link":          func(p string) { os.Symlink(outside, p) },
		"a dangling link": func(p string) { os.Symlink("../run/systemd/resolve/stub-resolv.conf", p) },
		"a leftover":      func(p string) { os.Symlink(outside, p+".hale") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "etc", "resolv.conf")
			os.MkdirAll(filepath.Dir(path), 0o755)
			before(path)
			if err := replaceFile(path, []byte("nameserver 10.77.0.1\n")); err != nil {
				t.Fatal(err)
			}
			fi, err := os.Lstat(path)
			if err != nil || !fi.Mode().IsRegular() || fi.Mode().Perm() != 0o644 {
				t.Errorf("%v, %v", fi, err)
			}
			if b, _ := os.ReadFile(path); string(b) != "nameserver 10.77.0.1\n" {
				t.Errorf("%q", b)
			}
		})
	}
	if b, _ := os.ReadFile(outside); string(b) != "not to be touched" {
		t.Errorf("a link was followed: %q", b)
	}
	if err := replaceFile(dir, []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	// What says the same already is not written again: it would be copied into the writable layer for nothing.
	path := filepath.Join(dir, "same")
	replaceFile(path, []byte("same"))
	long := time.Unix(1, 0)
	os.Chtimes(path, long, long)
	replaceFile(path, []byte("same"))
	if fi, _ := os.Stat(path); !fi.ModTime().Equal(long) {
		t.Error("written again")
	}
}

func TestMatching(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"vda/serial": "lower\n", "vdb/serial": "upper", "vdc/other": "upper"} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
	}
	for serial, want := range map[string]string{"lower": "vda", "upper": "vdb", "low": "", "": ""} {
		if got := matching(dir+"/*/serial", serial); got != want {
			t.Errorf("%q: %q, want %q", serial, got, want)
		}
	}
}

func TestModulesThatAreMissing(t *testing.T) {
	dir := t.TempDir()
	for name, dir := range map[string]string{"nothing": dir + "/none", "an empty directory": dir} {
		m, err := openModules(dir)
		if err := errors.Join(err, m.load(modulesNow), m.load(modulesLate), m.drop()); err != nil {
			t.Errorf("a kernel without modules, %s: %v", name, err)
		}
	}
	os.WriteFile(filepath.Join(dir, "order"), []byte("00-a.ko\n\n01-b.ko\n"), 0o644)
	m, err := openModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = m.load(modulesNow)
	if err == nil || !strings.Contains(err.Error(), "00-a.ko") || !strings.Contains(err.Error(), "01-b.ko") {
		t.Errorf("modules that are not there: %v", err)
	}
	if err := m.drop(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("dropped, and %v is left: %v", left, err)
	}
}
