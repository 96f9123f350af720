// Command hale-guest is the first process of every machine: it makes the machine out of its disks, runs the image's
// program in it and serves the host. It is built static and put into the machine's initrd as /init.
package main

import (
	"fmt"
	"os"

	"github.com/halevm/hale/internal/guest/agent/pid1"
	"github.com/halevm/hale/internal/version"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "hale-guest %s is the first process of a machine, and nothing else.\n", version.String())
		os.Exit(2)
	}
	pid1.Main()
}
