package pid1

import (
	"time"

	"golang.org/x/sys/unix"
)

// killedWithin is how long everything that was killed at the end may take to be gone.
const killedWithin = 3 * time.Second

// PowerOff ends the machine: everything is killed, written and switched off.
func (m *Machine) PowerOff() {
	<-m.prepared
	deadline := time.Now().Add(killedWithin)
	for unix.Kill(-1, unix.SIGKILL); childrenLeft() && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		unix.Kill(-1, unix.SIGKILL)
	}
	unix.Sync()
	if m.upper != nil {
		// A file system that is read-only at the end needs no recovery at the next start.
		if err := remountReadOnly(int(m.upper.Fd())); err != nil {
			m.log.Warn("the writable layer stays writable to the end", "err", err)
			unix.Sync()
		}
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		m.log.Error("power off", "err", err)
	}
	select {}
}

// childrenLeft reports whether PID 1 has children: every process is one of its descendants, and becomes its child when
// those between are gone. The agent's reaper goes on taking them.
func childrenLeft() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err != unix.ECHILD
}

// remountReadOnly does so by a descriptor: the mount itself is out of sight behind the image's root.
func remountReadOnly(dir int) error {
	fd, err := unix.Fspick(dir, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetFlag(fd, "ro"); err != nil {
		return err
	}
	return unix.FsconfigReconfigure(fd)
}
