package image

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// build makes a candidate's disk and blobs and puts them in their places.
func (s *Store) build(ctx context.Context, c *candidate, st *staging, report func(Progress)) error {
	if err := inflateAll(ctx, c.layers, st, s.o.Limits, report); err != nil {
		return err
	}
	f, err := st.create()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flatten(ctx, c.layers, f, s.o.Limits, report); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return s.install(ctx, c, f.Name())
}

// install puts a finished disk and what describes it in their places: the disk last, for it is what counts.
func (s *Store) install(ctx context.Context, c *candidate, disk string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, blob := range [][]byte{c.config, c.manifest} {
		hash, _ := digestOf(blob)
		if err := s.files.WriteFile(blobsDir+"/"+hash.Hex, blob); err != nil {
			return err
		}
	}
	if err := os.Rename(disk, s.diskPath(c.digest)); err != nil {
		return err
	}
	if err := syncDir(s.path(disksDir)); err != nil {
		return err
	}
	img, err := s.read(strings.TrimPrefix(c.digest, "sha256:"))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[c.digest] = img
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// flatten writes what inflated layers show over each other to f, an empty file, as an ext4 file system.
func flatten(ctx context.Context, layers []*layer, f *os.File, limits Limits, report func(Progress)) error {
	root, err := stack(ctx, layers, limits)
	if err != nil {
		return err
	}
	p, err := newPlan(root, len(layers), limits)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := p.emit(ctx, layers, w, newMeter(Writing, p.bytes, report))
		w.CloseWithError(err) // nil is the end
		done <- err
	}()
	disk := &sparseFile{f: f}
	// Without a buffer every header, and every 4 KB before it, would be handed over by itself.
	err = tar2ext4.ConvertTarToExt4(bufio.NewReaderSize(r, copyBuffer), disk, tar2ext4.MaximumDiskSize(p.diskSize()))
	r.CloseWithError(errStopped)
	emitted := <-done
	switch {
	case emitted != nil && !errors.Is(emitted, errStopped):
		return emitted
	case err != nil:
		return fmt.Errorf("write the image's disk: %w", err)
	}
	return disk.finish()
}

// errStopped ends the emission when the disk cannot be written.
var errStopped = errors.New("the disk is not written any more")

// stack reads the headers of the layers and returns the tree that they show over each other.
func stack(ctx context.Context, layers []*layer, limits Limits) (*inode, error) {
	merged := newDir()
	b := &budget{limits: limits}
	for i, l := range layers {
		t := newLayerTree(i, b)
		err := l.each(ctx, func(n int, h *tar.Header, _ io.Reader) error { return t.add(h, n) })
		if err == nil {
			err = t.apply(merged)
		}
		if err != nil {
			return nil, l.refuse(ctx, err)
		}
	}
	return merged, nil
}

// refuse says in which layer something is wrong, where the layer is at fault.
func (l *layer) refuse(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*os.PathError](err); ok || ctx.Err() != nil {
		return fmt.Errorf("read layer %d: %w", l.number, err)
	}
	return refuseLayer(l.number, err)
}

// emit writes one tar of the whole plan: directories from the root down, what has no content, then the files in the
// order in which the layers have them, so that each layer is read once, then their other names.
func (p *plan) emit(ctx context.Context, layers []*layer, w io.Writer, m *meter) error {
	buffered := bufio.NewWriterSize(w, copyBuffer)
	tw := tar.NewWriter(buffered)
	for _, list := range [][]*placed{p.dirs, p.others} {
		for _, n := range list {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := tw.WriteHeader(n.header()); err != nil {
				return fmt.Errorf("%s: %w", quote(n.path()), err)
			}
		}
	}
	buf := make([]byte, copyBuffer)
	for i, l := range layers {
		files := p.files[i]
		if len(files) == 0 {
			continue
		}
		err := l.each(ctx, func(n int, _ *tar.Header, r io.Reader) error {
			f, ok := files[n]
			if !ok {
				return nil
			}
			if err := tw.WriteHeader(f.header()); err != nil {
				return fmt.Errorf("%s: %w", quote(f.path()), err)
			}
			_, err := io.CopyBuffer(struct{ io.Writer }{tw}, struct{ io.Reader }{&metered{ctx: ctx, r: r, m: m}}, buf)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, n := range p.links {
		if err := tw.WriteHeader(n.header()); err != nil {
			return fmt.Errorf("%s: %w", quote(n.path()), err)
		}
	}
	return errors.Join(tw.Close(), buffered.Flush())
}
