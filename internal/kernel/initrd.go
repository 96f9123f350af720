package kernel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/halevm/hale/internal/store"
)

// initrdFormat is part of an initrd's name: raise it when what is in one changes in a way that its contents do not show.
const initrdFormat = 3

// Initrd returns the path of the initrd with agent as its /init, and makes it where it is missing. Its name follows from
// its contents, so one that is there is the one that is wanted.
//
// It holds /init, /modules/order (one file name a line, in the order of loading), /modules/late (likewise, for when the program has been
// started) and those files, and /dev/console.
func (k Kernel) Initrd(agent []byte) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %s %s %s\n", initrdFormat, k.Version, k.Digest, strings.Join(append(needed[:len(needed):len(needed)], late...), " "))
	sum.Write(agent)
	if k.Package == "" { // a person may build its modules anew
		if err := k.stampModules(sum); err != nil {
			return "", err
		}
	}
	path := made(k.Dir, madeInitrd, string(sum.Sum(nil)))
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	modules, err := k.modules()
	if err != nil {
		return "", err
	}
	var buf bytes.Buffer
	if err := writeInitrd(&buf, agent, modules); err != nil {
		return "", fmt.Errorf("make the initrd: %w", err)
	}
	if err := store.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("make the initrd: %w", err)
	}
	removeOld(k.Dir, madeInitrd, path)
	return path, nil
}

// Check says what is lacking for an initrd, and makes none.
func (k Kernel) Check() error {
	_, err := k.modules()
	return err
}

func writeInitrd(buf *bytes.Buffer, agent []byte, modules []module) error {
	records := []cpio.Record{
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.Directory("modules", 0o755),
		cpio.StaticFile("init", string(agent), 0o755),
	}
	var order, late strings.Builder
	for i, m := range modules {
		name := fmt.Sprintf("%02d-%s.ko", i, m.name)
		records = append(records, cpio.StaticFile("modules/"+name, string(m.data), 0o644))
		list := &order
		if m.late {
			list = &late
		}
		list.WriteString(name + "\n")
	}
	records = append(records, cpio.StaticFile("modules/order", order.String(), 0o644), cpio.StaticFile("modules/late", late.String(), 0o644))
	w := cpio.Newc.Writer(buf)
	if err := cpio.WriteRecords(w, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(w)
}
