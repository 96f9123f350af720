package main

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestNotifyReady(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notifyReady(); err != nil {
		t.Errorf("nobody to tell: %v", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@hale-test-" + filepath.Base(t.TempDir())} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", name)
		if err := notifyReady(); err != nil {
			t.Error(err)
		}
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		b := make([]byte, 64)
		if n, err := conn.Read(b); err != nil || string(b[:n]) != "READY=1" {
			t.Errorf("%s is told %q, %v", name, b[:n], err)
		}
		conn.Close()
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if notifyReady() == nil {
		t.Error("a socket that is not there takes it")
	}
}
