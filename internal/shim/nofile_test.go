package shim

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/shim/protocol"
)

// A shim that has no descriptor left serves the daemon that it let in: were it to hang up, the machine would be taken for dead, and killed.
func TestServedWithoutDescriptors(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := listen("s", "secret", os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	s.serve(&player{}, protocol.Welcome{PID: 1})
	defer s.close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for accepted := false; !accepted; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		accepted = len(s.conns) > 0
		s.mu.Unlock()
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	hello := protocol.Hello{MinVersion: 1, MaxVersion: 3, Secret: "secret", Role: protocol.RoleControl}
	if err := protocol.WriteJSON(conn, protocol.KindHello, hello); err != nil {
		t.Fatal(err)
	}
	var w protocol.Welcome
	if err := protocol.Expect(conn, protocol.KindWelcome, &w); err != nil || w.Error != nil {
		t.Fatal(err, w.Error)
	}
	if err := protocol.WriteJSON(conn, protocol.KindRequest, protocol.Request{ID: 1, Method: "echo", Params: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	var r protocol.Reply
	if err := protocol.Expect(conn, protocol.KindReply, &r); err != nil || r.ID != 1 {
		t.Errorf("welcome, and then: %+v, %v", r, err)
	}
}
