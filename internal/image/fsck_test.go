package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

// e2fsck is the last word on what a sound file system is: it knows things that the kernel puts up with.

// checked fails the test unless e2fsck finds nothing wrong with a disk.
func checked(t *testing.T, name string) {
	t.Helper()
	e2fsck := "/usr/sbin/e2fsck" // which Debian keeps where an ordinary user's PATH does not lead
	if p, err := exec.LookPath("e2fsck"); err == nil {
		e2fsck = p
	} else if _, err := os.Stat(e2fsck); err != nil {
		t.Skip("e2fsck is not installed (hale setup installs it)")
	}
	out, err := exec.Command(e2fsck, "-fn", name).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("? no")) || bytes.Contains(out, []byte("WARNING")) {
		t.Errorf("e2fsck: %v\n%.2000s", err, out)
	}
}

func TestFsck(t *testing.T) {
	for _, c := range stacks {
		t.Run(c.name, func(t *testing.T) { checked(t, diskOf(t, written(t, false, c.tars()...)).Name()) })
	}
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("random ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			checked(t, diskOf(t, written(t, false, randomLayer(r), randomLayer(r))).Name())
		})
	}
}
