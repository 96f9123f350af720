package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// tarProgram writes a layer of one program, by its own name.
func tarProgram(path, program string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	return writeTar(path, func(w *tar.Writer) error { return addFile(w, "guest", 0o755, b) })
}

// tarFiller writes a layer of so many bytes, in files of a size that is usual.
func tarFiller(path string, size int) error {
	const each = 16 << 10
	random := rand.NewChaCha8([32]byte{})
	return writeTar(path, func(w *tar.Writer) error {
		b := make([]byte, each)
		for i := range size / each {
			random.Read(b)
			if err := addFile(w, fmt.Sprintf("opt/filler/%02d/%04d", i%32, i), 0o644, b); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeTar(path string, fill func(*tar.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	return errors.Join(fill(w), w.Close(), f.Close())
}

func addFile(w *tar.Writer, name string, mode int64, b []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(b)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// writeArchive writes an image as `docker save` does: its layers are not compressed.
func writeArchive(path, ref string, cmd []string, layers ...string) error {
	var diffs, names []string
	for i, l := range layers {
		sum, err := digest(l)
		if err != nil {
			return err
		}
		diffs, names = append(diffs, "sha256:"+sum), append(names, fmt.Sprintf("layer%d.tar", i))
	}
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": "amd64",
		"config": map[string]any{"Cmd": cmd},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{ref}, "Layers": names}})
	if err != nil {
		return err
	}
	return writeTar(path, func(w *tar.Writer) error {
		if err := addFile(w, "config.json", 0o644, config); err != nil {
			return err
		}
		for i, l := range layers {
			if err := addTar(w, names[i], l); err != nil {
				return err
			}
		}
		return addFile(w, "manifest.json", 0o644, manifest)
	})
}

func addTar(w *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: st.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
