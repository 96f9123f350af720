package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// bzImage is the least that Uncompress takes, with an ELF image that ends in text.
func bzImage(t *testing.T, text string) []byte {
	t.Helper()
	elf := []byte("\x7fELF" + text)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(elf); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	image := make([]byte, 1024)
	image[offSetupSects] = 1
	copy(image[offMagic:], "HdrS")
	binary.LittleEndian.PutUint16(image[offVersion:], 0x208)
	binary.LittleEndian.PutUint32(image[offPayloadLength:], uint32(packed.Len()+4))
	image = append(image, packed.Bytes()...)
	return binary.LittleEndian.AppendUint32(image, uint32(len(elf)))
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Duration(len(content)) * time.Second) // than what was there, whatever the file system's clock
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
}

// What a person puts in the place of a kernel that they named, or of its modules, is what machines boot; and what else is there stays.
func TestNamedKernelChanges(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, modulesName, "6.1")
	builtin := []byte("kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_net.ko\nkernel/virtio_console.ko\nkernel/overlay.ko\nkernel/virtio_rng.ko\n")
	put(t, filepath.Join(tree, "modules.builtin"), builtin)
	put(t, filepath.Join(tree, "kernel", "other.ko"), nil)
	put(t, filepath.Join(dir, "initrd-mine.cpio"), nil)
	put(t, filepath.Join(dir, "initrd-older.cpio"), nil)
	initrds := map[string]bool{}
	for _, text := range []string{"first", "the second", "and the third"} {
		put(t, filepath.Join(dir, imageName), bzImage(t, text))
		put(t, filepath.Join(tree, "kernel", "other.ko"), []byte(text))
		for range 2 {
			k, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			image, err := k.Image()
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(image); err != nil || string(b) != "\x7fELF"+text {
				t.Errorf("the kernel is %q, %v, want %q", b, err, text)
			}
			initrd, err := k.Initrd([]byte("agent"))
			if err != nil {
				t.Fatal(err)
			}
			initrds[initrd] = true
		}
	}
	if len(initrds) != 3 {
		t.Errorf("three sets of modules, and the initrds %v", initrds)
	}
	for _, pattern := range []string{"initrd-[0-9a-f]*.cpio", "vmlinux-*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) != 2 {
			t.Errorf("%q are left, want this one and the one before", left)
		}
	}
	for _, name := range []string{"initrd-mine.cpio", "initrd-older.cpio"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("a file of somebody's own: %v", err)
		}
	}
}
