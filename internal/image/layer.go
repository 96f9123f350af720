package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// A layer is a tar of differences: first as it is in the archive, then inflated.
type layer struct {
	number    int // from 1, for messages
	blob      member
	diffID    v1.Hash // of the inflated tar, as the configuration says
	plain     string  // where the inflated tar lies; empty until it does
	plainSize int64
	early     *earlyTree // of the inflated tar; may be nil
}

// parallelLayers is how many layers of one image are inflated at a time.
const parallelLayers = 2

// inflateAll inflates and verifies the layers that are not inflated yet.
func inflateAll(ctx context.Context, layers []*layer, st *staging, limits Limits, report func(Progress)) error {
	var total int64
	for _, l := range layers {
		if l.plain == "" {
			total += l.blob.size
		}
	}
	if total == 0 {
		return nil
	}
	m := newMeter(Inflating, total, report)
	early, left := newEarlyBudget(), &atomic.Int64{}
	left.Store(limits.Plain)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLayers)
	for _, l := range layers {
		if l.plain != "" {
			continue
		}
		g.Go(func() error {
			err := caught(func() error { return l.inflate(ctx, st, limits, early, left, m) })
			switch {
			case err == nil:
				return nil
			case ours(err), ctx.Err() != nil:
				return fmt.Errorf("inflate layer %d: %w", l.number, err)
			}
			return refuseLayer(l.number, err)
		})
	}
	return g.Wait()
}

// inflate makes l.plain. A layer that is not compressed stays where it is: its hash is known already.
func (l *layer) inflate(ctx context.Context, st *staging, limits Limits, early *budget, left *atomic.Int64, m *meter) error {
	in, err := os.Open(l.blob.file)
	if err != nil {
		return err
	}
	defer in.Close()
	var magic [4]byte
	if n, err := in.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return err
	} else if s := string(magic[:n]); s != zstdMagic && (n < 2 || s[:2] != gzipMagic) {
		if left.Add(-l.blob.size) < 0 {
			return tooLarge("the image's layers hold more than %d bytes", limits.Plain)
		}
		m.add(l.blob.size)
		l.early = l.blob.early
		return l.verified(l.blob.file, l.blob.size, l.blob.sha256)
	}

	src, err := decompress(&metered{ctx: ctx, r: in, m: m})
	if err != nil {
		return err
	}
	defer src.Close()
	out, err := st.create()
	if err != nil {
		return err
	}
	defer out.Close()
	bound := &bounded{
		r: src, left: left, plain: limits.Plain,
		max: max(l.blob.size*limits.Ratio, limits.RatioMin), compressed: l.blob.size,
	}
	follower := follow(ctx, early)
	defer follower.drop()
	w := newSideWriter(out, follower.pass)
	defer w.stop()
	if err := copyJudged(w, bound, limits.Entries); err != nil {
		return err
	}
	sum, err := w.finish()
	if err != nil {
		return err
	}
	l.early = follower.finish()
	return errors.Join(out.Close(), l.verified(out.Name(), bound.n, sum))
}

func (l *layer) verified(file string, size int64, sum string) error {
	if l.diffID.Algorithm != "sha256" || sum != l.diffID.Hex {
		return invalid("its content has the digest sha256:%s, and the image's configuration says %s", sum, l.diffID)
	}
	l.plain, l.plainSize = file, size
	return nil
}

// A bounded reader refuses what inflates beyond measure, before it is written.
type bounded struct {
	r          io.Reader
	n          int64 // read so far
	max        int64
	compressed int64
	left       *atomic.Int64 // shared by the image's layers
	plain      int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	b.left.Add(-int64(n))
	if err := b.room(0); err != nil {
		return 0, err
	}
	return n, err
}

// room is nil when n more bytes are possible.
func (b *bounded) room(n int64) error {
	if n > b.max-b.n {
		return tooLarge("its %d bytes inflate to more than %d", b.compressed, b.max)
	}
	if n > b.left.Load() {
		return tooLarge("the image's layers hold more than %d bytes", b.plain)
	}
	return nil
}

// copyJudged copies a layer, and looks at its headers as they pass: what says that it is too large is refused before its
// data is written. What is no tar is copied all the same; its digest decides what is wrong with it.
func copyJudged(dst io.Writer, src *bounded, entries int) error {
	tr := tar.NewReader(io.TeeReader(src, dst))
	for n := 0; ; n++ {
		h, err := nextHeader(tr)
		if err != nil {
			break
		}
		if n == entries {
			return tooLarge("it has more than %d entries", entries)
		}
		if isSparse(h) {
			continue // its size is that of its holes too
		}
		if err := src.room(h.Size); err != nil {
			return err
		}
	}
	_, err := io.Copy(dst, src)
	return err
}

// isSparse reports whether an entry's content may be told by its pieces, in one of the ways of GNU tar.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// each calls f with every entry of the inflated layer, in order, and with where its content begins.
func (l *layer) each(ctx context.Context, f func(h *tar.Header, n int, offset int64) error) error {
	file, err := os.Open(l.plain)
	if err != nil {
		return err
	}
	defer file.Close()
	return readEntries(ctx, newWindow(file), f)
}

func readEntries(ctx context.Context, src io.ReadSeeker, f func(h *tar.Header, n int, offset int64) error) error {
	tr := tar.NewReader(src)
	for n := 0; ; n++ {
		h, err := nextHeader(tr)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errBadLayer, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		at, err := src.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if err := f(h, n, at); err != nil {
			return err
		}
	}
}

// An openLayer is an inflated layer whose files are read.
type openLayer struct {
	f    *os.File
	tr   *tar.Reader // for content that does not lie in one piece
	next int         // the entry that tr comes to next
}

// openLayers opens those layers of which p has files.
func openLayers(p *plan, layers []*layer) ([]*openLayer, error) {
	open := make([]*openLayer, len(layers))
	for i, l := range layers {
		if len(p.files[i]) == 0 {
			continue
		}
		f, err := os.Open(l.plain)
		if err != nil {
			closeLayers(open)
			return nil, err
		}
		open[i] = &openLayer{f: f}
	}
	return open, nil
}

func closeLayers(open []*openLayer) {
	for _, o := range open {
		if o != nil {
			o.f.Close()
		}
	}
}

// entry reads the content of an entry, holes expanded. It is asked for one after the other, in their order.
func (o *openLayer) entry(n int) (io.Reader, error) {
	if o.tr == nil {
		o.tr = tar.NewReader(newWindow(o.f))
	}
	for ; o.next <= n; o.next++ {
		if _, err := nextHeader(o.tr); err != nil {
			return nil, err
		}
	}
	return o.tr, nil
}

// A window reads a file in pieces, lets the tar reader skip what nobody reads, and knows where it is.
type window struct {
	f   io.ReaderAt
	buf []byte
	at  int64 // where buf lies in the file
	pos int64
}

const windowSize = 64 << 10

func newWindow(f io.ReaderAt) *window { return &window{f: f, buf: make([]byte, 0, windowSize)} }

func (w *window) Read(b []byte) (int, error) {
	if w.pos < w.at || w.pos >= w.at+int64(len(w.buf)) {
		n, err := w.f.ReadAt(w.buf[:cap(w.buf)], w.pos)
		w.buf, w.at = w.buf[:n], w.pos
		if n == 0 {
			return 0, err
		}
	}
	n := copy(b, w.buf[w.pos-w.at:])
	w.pos += int64(n)
	return n, nil
}

func (w *window) Seek(offset int64, whence int) (int64, error) { return seekOn(&w.pos, offset, whence) }

// seekOn serves what archive/tar asks for: where a reader is, and how to go on from there.
func seekOn(pos *int64, offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || *pos+offset < 0 {
		return 0, errors.ErrUnsupported
	}
	*pos += offset
	return *pos, nil
}
