package leak

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/halevm/hale/internal/store"
)

func TestWhoHoldsWhat(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	find := func(what string) (found []Holding) {
		t.Helper()
		all, err := Look(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range all {
			if strings.Contains(fmt.Sprintf("%s %s %s", h.Owner, h.Kind, h.What), what) {
				found = append(found, h)
			}
		}
		return found
	}
	if got := find(""); len(got) != 0 {
		t.Errorf("an empty directory: %+v", got)
	}
	const good, dead, half = "a23456789012345678901234", "b23456789012345678901234", "c23456789012345678901234"
	write("instances/"+good+"/instance.json", "{}")
	write("instances/"+good+"/owner.json", `{"uid":2046820399}`)
	write("instances/"+dead+"/instance.json", "{}")
	write("instances/"+dead+"/shim.json", `{"pid":1,"start_time":1,"boot_id":"another"}`)
	write("instances/"+half+"/instance.json.next", "{}")
	write("instances/"+good+".unreadable-20260101T000000Z/instance.json", "{")
	write("images/staging/1/1", "")
	write("instances/"+good+"/vm/x", "")

	for what, left := range map[string]bool{
		"instance " + good + " uid 2046820399": false,
		"shim.json: its shim (pid 1) is gone":  true,
		half + ": a creation":                  true,
		"could not be read":                    true,
		"images/staging/1":                     true,
	} {
		if got := find(what); len(got) != 1 || got[0].Left != left || left && got[0].Mend == "" {
			t.Errorf("%s: %+v, want one, left over: %v", what, got, left)
		}
	}

	// A process that nobody knows of.
	stray := exec.Command("sleep", "60")
	stray.Dir = filepath.Join(dir, "instances", good, "vm")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	got := find("nobody process")
	if len(got) != 1 || got[0].PID != stray.Process.Pid || !got[0].Left || !strings.Contains(got[0].What, good) {
		t.Errorf("a stray process: %+v", got)
	}
	stray.Process.Kill()
	stray.Wait()
	if got := find("nobody process"); len(got) != 0 {
		t.Errorf("after its end: %+v", got)
	}

	// A daemon, which is this process: what is under way is not left over.
	root, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	lock, err := root.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if got := find("daemon process"); len(got) != 1 || got[0].PID != os.Getpid() {
		t.Errorf("the daemon: %+v", got)
	}
	if got := find(fmt.Sprintf("daemon socket tcp port %d", ln.Addr().(*net.TCPAddr).Port)); len(got) != 1 {
		t.Errorf("its listener: %+v, of %+v", got, find("daemon socket"))
	}
	if got := find("daemon file lock"); len(got) != 1 {
		t.Errorf("its lock: %+v", got)
	}
	if got := find("images/staging/1"); len(got) != 1 || got[0].Left {
		t.Errorf("an import under way: %+v", got)
	}
}
