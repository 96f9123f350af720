package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
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
	var rest errgroup.Group // of which most is to wait for the host's disk
	rest.Go(f.Sync)
	rest.Go(catching(func() error { return s.describe(ctx, c) }))
	if c.last {
		rest.Go(func() error { st.clear(f.Name()); return nil })
	}
	if err := errors.Join(rest.Wait(), f.Close()); err != nil {
		return err
	}
	return s.install(ctx, c, f.Name())
}

// describe puts what says what a disk is in its place. Sweep leaves it alone for as long as the job lasts.
func (s *Store) describe(ctx context.Context, c *candidate) error {
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
	return nil
}

// install puts a finished disk in its place, last of all, for it is what counts.
func (s *Store) install(ctx context.Context, c *candidate, disk string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
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
	c, err := newChart(p)
	if err != nil {
		return err
	}
	open, err := openLayers(p, layers)
	if err != nil {
		return err
	}
	defer closeLayers(open)
	d := newDiskFile(ctx, f, open, newMeter(Writing, p.bytes, report))
	defer d.stop()
	if err = c.write(d); err == nil {
		err = d.finish()
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("write the image's disk: %w", err)
	}
	return nil
}

// stack reads the headers of the layers and returns the tree that they show over each other.
func stack(ctx context.Context, layers []*layer, limits Limits) (*inode, error) {
	merged := newDir()
	b := &budget{limits: limits}
	for i, l := range layers {
		t, err := l.early.take(i, b)
		if t == nil && err == nil {
			t = newLayerTree(i, b)
			err = l.each(ctx, t.add)
		}
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
	if ours(err) || ctx.Err() != nil {
		return fmt.Errorf("read layer %d: %w", l.number, err)
	}
	return refuseLayer(l.number, err)
}
