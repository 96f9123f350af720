package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	imageSize   = 150 << 20
	imageRounds = 5
)

// benchImage makes a disk of an image, and unpacks the same layers with tar.
func benchImage(ctx context.Context, s *site) error {
	st, err := os.Stat(s.rootfs)
	if err != nil {
		return err
	}
	layers := []string{s.rootfs}
	if rest := imageSize - int(st.Size()); rest > 0 {
		filler := filepath.Join(s.dir, "filler.tar")
		if err := tarFiller(filler, rest*32/33); err != nil { // a header of 512 bytes beside 16 KB
			return err
		}
		layers = append(layers, filler)
	}
	archive := filepath.Join(s.dir, "large.tar")
	if err := writeArchive(archive, "bench/large:latest", []string{"/bin/true"}, layers...); err != nil {
		return err
	}
	tmpfs, err := os.MkdirTemp("/dev/shm", "hale-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmpfs)
	var fs unix.Statfs_t
	if err := unix.Statfs(tmpfs, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("%s is no tmpfs (%v)", filepath.Dir(tmpfs), err)
	}
	return s.withDaemon(ctx, "image", func(d *daemon) error {
		var ours, theirs []float64
		for i := range imageRounds + 1 {
			began := time.Now()
			img, err := d.load(ctx, archive)
			if err != nil {
				return err
			}
			mine := ms(time.Since(began))
			if err := d.DeleteImage(ctx, img.Name); err != nil {
				return err
			}
			tar, err := unpack(ctx, filepath.Join(tmpfs, fmt.Sprint(i)), layers)
			if err != nil {
				return err
			}
			if i > 0 { // the first reads from the disk
				ours, theirs = append(ours, mine), append(theirs, ms(tar))
			}
		}
		s.report.add(row{what: "an image of 150 MB, from tar to ready", unit: milliseconds, figure: median(ours), reference: median(theirs), beside: "`tar x` to tmpfs", mostRatio: 3, bound: "≤ 3 ×, 2 is aimed at"})
		s.report.note("Image: medians of %d, in turn, of two layers that are not compressed; ours %s over the API, to a disk that is on the host's disk; tar %s.",
			imageRounds, spread(milliseconds, ours), spread(milliseconds, theirs))
		return nil
	})
}

func unpack(ctx context.Context, dir string, layers []string) (time.Duration, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	began := time.Now()
	for _, l := range layers {
		// A device needs root, and what cannot be made costs nothing.
		cmd := exec.CommandContext(ctx, "tar", "-xf", l, "-C", dir, "--exclude=./dev/*", "--exclude=dev/*")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("tar: %w: %s", err, out)
		}
	}
	took := time.Since(began)
	return took, os.RemoveAll(dir)
}
