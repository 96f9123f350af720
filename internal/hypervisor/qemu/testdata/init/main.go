// Command init is PID 1 of the machines that the driver's end-to-end tests boot. It says what it finds on the console,
// does what hale.test=… on the kernel's command line tells it, and knows nothing of the real agent.
package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	fmt.Println("test-init: begins")
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		os.Mkdir(m[1], 0o755)
		check(unix.Mount(m[0], m[1], m[0], 0, ""))
	}
	began := time.Now()
	loadModules()
	fmt.Println("test-init: modules took", time.Since(began).Round(time.Millisecond))
	line, err := os.ReadFile("/proc/cmdline")
	check(err)
	_, order, _ := strings.Cut(strings.TrimSpace(string(line)), "hale.test=")
	order, _, _ = strings.Cut(order, " ")
	switch order {
	case "poweroff":
	case "reboot":
		check(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
	case "panic":
		os.Exit(3) // the kernel panics when its init is gone
	case "version":
		var u unix.Utsname
		check(unix.Uname(&u))
		fmt.Println("test-init: kernel", unix.ByteSliceToString(u.Release[:]))
		tellCPU()
	case "hang":
		fmt.Println("test-init: hangs")
		select {}
	case "devices":
		tellPorts()
		tellDisks()
		tellCard()
	default:
		fmt.Println("test-init: unknown order", order)
	}
	fmt.Println("test-init: ends")
	unix.Sync()
	check(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func check(err error) {
	if err != nil {
		fmt.Println("test-init: error:", err)
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}

func loadModules() {
	order, err := os.ReadFile("/modules/order")
	check(err)
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open(filepath.Join("/modules", name))
		check(err)
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			check(fmt.Errorf("module %s: %w", name, err))
		}
		f.Close()
	}
}

// tellCPU says which of the features of x86-64-v3 are not there, and how long a system call takes.
func tellCPU() {
	b, err := os.ReadFile("/proc/cpuinfo")
	check(err)
	_, flags, _ := strings.Cut(string(b), "flags\t\t: ")
	flags, _, _ = strings.Cut(flags, "\n")
	has := make(map[string]bool)
	for f := range strings.FieldsSeq(flags) {
		has[f] = true
	}
	for f := range strings.FieldsSeq("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave") {
		if !has[f] {
			fmt.Println("test-init: the processor lacks", f)
		}
	}
	// In the best of many turns: in others the host may be somebody else's.
	const turns, calls = 50, 2_000
	best := time.Hour
	for range turns {
		began := time.Now()
		for range calls {
			unix.Getppid()
		}
		best = min(best, time.Since(began)/calls)
	}
	fmt.Println("test-init: a system call takes", best)
}

// tellPorts writes each port's own name into it, and what it reads from the control port onto the console.
func tellPorts() {
	var names []string
	for range 1000 { // the host tells of them one by one, once the driver is there
		var err error
		names, err = filepath.Glob("/sys/class/virtio-ports/*/name")
		check(err)
		if len(names) == 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, path := range names {
		b, err := os.ReadFile(path)
		check(err)
		name := strings.TrimSpace(string(b))
		f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
		check(err)
		_, err = f.WriteString(name + "\n")
		check(err)
		if name == "hale.control" {
			buf := make([]byte, 64)
			n, err := f.Read(buf)
			check(err)
			fmt.Printf("test-init: control says %q\n", buf[:n])
		}
	}
}

func tellDisks() {
	serials, err := filepath.Glob("/sys/block/vd*/serial")
	check(err)
	for _, path := range serials {
		b, err := os.ReadFile(path)
		check(err)
		serial := strings.TrimSpace(string(b))
		dev := "/dev/" + filepath.Base(filepath.Dir(path))
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		check(err)
		_, err = f.WriteAt([]byte("written by the guest"), 4096)
		if err == nil {
			err = f.Sync()
		}
		fmt.Printf("test-init: disk %s is written: %v\n", serial, err)
		buf := make([]byte, 16)
		_, err = f.ReadAt(buf, 0)
		check(err)
		fmt.Printf("test-init: disk %s holds %q\n", serial, strings.TrimRight(string(buf), "\x00"))
	}
}

func tellCard() {
	cards, err := net.Interfaces()
	check(err)
	for _, c := range cards {
		if c.HardwareAddr != nil {
			fmt.Printf("test-init: card %s mtu %d\n", c.HardwareAddr, c.MTU)
		}
	}
}
