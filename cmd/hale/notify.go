package main

import (
	"net"
	"os"
)

// notifyReady tells the service manager that started this daemon, if one did, that it is ready (sd_notify(3)): whoever waits for
// `systemctl restart` finds a daemon that answers.
func notifyReady() error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: name}) // an abstract one begins with @ here, too
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}
