package pid1

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest/protocol"
)

func setHostname(name string) error {
	if name == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name %q: %w", name, err)
	}
	return nil
}

// writeNames writes who this machine is and where it asks for others. The files are the machine's, not the image's: they
// are written at each start, as Docker does.
func writeNames(b protocol.Boot) error {
	errs := []error{
		replaceFile("/etc/hostname", []byte(b.Hostname+"\n")),
		replaceFile("/etc/hosts", hosts(b)),
	}
	if b.Network != nil {
		errs = append(errs, replaceFile("/etc/resolv.conf", fmt.Appendf(nil, "nameserver %s\n", b.Network.Gateway)))
	}
	return errors.Join(errs...)
}

func hosts(b protocol.Boot) []byte {
	var h bytes.Buffer
	h.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	addr := "127.0.1.1"
	if b.Network != nil {
		addr = b.Network.Addr.Addr().String()
	}
	if b.Hostname != "" {
		fmt.Fprintf(&h, "%s\t%s\n", addr, b.Hostname)
	}
	return h.Bytes()
}

// replaceFile puts a file at path, whatever was there: a link (resolv.conf often is one, to what only another init would
// make) is replaced and not followed. A file that says the same already is left alone.
func replaceFile(path string, data []byte) error {
	if fi, err := os.Lstat(path); err == nil {
		if fi.IsDir() {
			return fmt.Errorf("%s is a directory in this image", path)
		}
		if fi.Mode().IsRegular() && fi.Size() == int64(len(data)) {
			if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
				return nil
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".hale"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
