package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// becomeInit does what a machine of QEMU's own user network needs to answer: file systems, modules, and the address that
// this network gives by DHCP to whoever asks.
func becomeInit() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		os.Mkdir(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	for range 1000 {
		if cards, _ := filepath.Glob("/sys/class/net/*/device"); len(cards) == 1 {
			card := filepath.Base(filepath.Dir(cards[0]))
			if err := setUp("lo", [4]byte{127, 0, 0, 1}); err != nil {
				return err
			}
			return setUp(card, [4]byte{10, 0, 2, 15})
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("no network card")
}

func loadModules() error {
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open(filepath.Join("/modules", name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

// setUp gives a card its address, whose class is its network, and brings it up.
func setUp(card string, addr [4]byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(card)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(addr[:]); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
		return fmt.Errorf("address of %s: %w", card, err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("bring up %s: %w", card, err)
	}
	return nil
}
