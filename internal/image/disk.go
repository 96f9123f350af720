package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// What a disk in work takes in memory, whatever its size: two copiers, and two pieces for each of them.
const (
	pieceSize  = 512 << 10
	copiers    = 2
	maxPieces  = 2 * copiers
	syncedSize = 8 << 20 // the host is asked to begin with writing out when so much more is there
)

var zeros [blockSize]byte

// A diskFile is a new file that is written from its beginning to its end, in blocks. It is cut into pieces, into which copiers put the content
// of files, and which they put into the file; blocks that are all zeros become holes. But for the copiers it is for one goroutine.
type diskFile struct {
	ctx    context.Context // ends with the first copier that fails, too
	f      *os.File
	layers []*openLayer
	m      *meter

	next *piece // that is being filled; may be nil
	size int64  // with it
	err  error  // the first one; nothing is written after it

	work    *errgroup.Group
	todo    chan *piece
	free    chan *piece
	made    int
	stopped bool

	mu       sync.Mutex
	unsynced int64
}

// A piece is a part of the disk on its way to the file.
type piece struct {
	at   int64 // where it belongs
	buf  []byte
	runs []run
}

// A run is content of one file that a piece misses.
type run struct {
	at   int // in the piece
	n    int
	file *placed
	from int64 // in the file
}

func newDiskFile(ctx context.Context, f *os.File, layers []*openLayer, m *meter) *diskFile {
	d := &diskFile{f: f, layers: layers, m: m, free: make(chan *piece, maxPieces)}
	d.work, d.ctx = errgroup.WithContext(ctx)
	d.todo = make(chan *piece, maxPieces)
	for range copiers {
		d.work.Go(catching(d.copy))
	}
	return d
}

// block is the next block of the disk, all zeros, to be written into before the next call. After an error nobody reads it.
func (d *diskFile) block() []byte {
	b := d.room(blockSize)
	clear(b)
	return b
}

// skip leaves so many blocks as they are: zeros.
func (d *diskFile) skip(blocks int64) {
	d.hand()
	d.size += blocks * blockSize
}

// content is the next blocks of the disk: what is in the file n.
func (d *diskFile) content(n *placed) {
	if n.offset < 0 {
		d.told(n)
		return
	}
	for from := int64(0); from < n.size && d.err == nil; {
		rest := n.size - from
		b := d.room((rest + blockSize - 1) &^ (blockSize - 1))
		here := int(min(rest, int64(len(b))))
		d.next.runs = append(d.next.runs, run{at: len(d.next.buf) - len(b), n: here, file: n, from: from})
		clear(b[here:])
		from += int64(here)
	}
}

// told writes content that does not lie in the layer in one piece, for who reads the layer as a tar.
func (d *diskFile) told(n *placed) {
	r, err := d.layers[n.layer].entry(n.entry)
	d.fail(err)
	r = &metered{ctx: d.ctx, r: r, m: d.m}
	for left := n.size; left > 0 && d.err == nil; left -= blockSize {
		_, err := io.ReadFull(r, d.block()[:min(left, blockSize)])
		d.fail(err)
	}
}

// room is the next part of the disk, of at most so many bytes and at least a block.
func (d *diskFile) room(most int64) []byte {
	if d.next != nil && len(d.next.buf) == cap(d.next.buf) {
		d.hand()
	}
	if d.next == nil {
		d.next = d.piece()
		d.next.at, d.next.buf, d.next.runs = d.size, d.next.buf[:0], d.next.runs[:0]
	}
	from := len(d.next.buf)
	n := min(most, int64(cap(d.next.buf)-from))
	d.next.buf = d.next.buf[:from+int(n)]
	d.size += n
	return d.next.buf[from:]
}

// hand gives what is there of a piece to the copiers.
func (d *diskFile) hand() {
	if d.next != nil && d.err == nil {
		d.todo <- d.next // which has room for all pieces
	}
	d.next = nil
}

// piece waits for one that is free. After an error it is one that goes nowhere.
func (d *diskFile) piece() *piece {
	if d.err == nil && d.made == maxPieces {
		select {
		case p := <-d.free:
			return p
		case <-d.ctx.Done():
			d.fail(d.stop())
			d.fail(context.Cause(d.ctx))
		}
	}
	d.made++
	return &piece{buf: make([]byte, pieceSize)}
}

func (d *diskFile) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// copy puts pieces into the file until there are no more.
func (d *diskFile) copy() error {
	var near nearReader
	for p := range d.todo {
		content := int64(0)
		for _, r := range p.runs {
			content += int64(r.n)
			l := d.layers[r.file.layer].f
			if err := near.read(l, p.buf[r.at:r.at+r.n], r.file.offset+r.from); err != nil {
				return err
			}
		}
		if err := d.put(p); err != nil {
			return err
		}
		d.m.add(content)
		d.flush(int64(len(p.buf)))
		d.free <- p // which has room for all pieces
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
	}
	return nil
}

// put writes a piece to where it belongs.
func (d *diskFile) put(p *piece) error {
	for done := 0; done < len(p.buf); {
		skip, n := p.split(done)
		if !skip {
			if _, err := d.f.WriteAt(p.buf[done:done+n], p.at+int64(done)); err != nil {
				return err
			}
		}
		done += n
	}
	return nil
}

// split says how many of the bytes from at on are alike: zeros to be skipped, or data to be written in one go.
func (p *piece) split(at int) (skip bool, n int) {
	for ; at+n < len(p.buf); n += blockSize {
		hole := bytes.Equal(p.buf[at+n:at+n+blockSize], zeros[:])
		if n > 0 && hole != skip {
			break
		}
		skip = hole
	}
	return skip, n
}

// flush has the host begin with writing out, so that little is left to wait for in the end. It is advice: what cannot be written is
// told by fsync.
func (d *diskFile) flush(n int64) {
	d.mu.Lock()
	d.unsynced += n
	due := d.unsynced >= syncedSize
	if due {
		d.unsynced = 0
	}
	d.mu.Unlock()
	if due {
		_ = unix.SyncFileRange(int(d.f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// A nearReader reads what is small together with what follows it.
type nearReader struct {
	f   *os.File
	buf []byte
	at  int64 // where buf lies in f
}

func (r *nearReader) read(f *os.File, b []byte, at int64) error {
	if len(b) >= windowSize/4 {
		_, err := f.ReadAt(b, at)
		return err
	}
	if f != r.f || at < r.at || at+int64(len(b)) > r.at+int64(len(r.buf)) {
		if r.buf == nil {
			r.buf = make([]byte, windowSize)
		}
		n, err := f.ReadAt(r.buf[:windowSize], at)
		r.f, r.buf, r.at = f, r.buf[:n], at
		if n < len(b) {
			return err
		}
	}
	copy(b, r.buf[at-r.at:])
	return nil
}

// stop ends the copiers, and returns what went wrong with one.
func (d *diskFile) stop() error {
	if !d.stopped {
		d.stopped = true
		close(d.todo)
	}
	return d.work.Wait()
}

// finish gives the file its size, once everything is in it.
func (d *diskFile) finish() error {
	d.hand()
	if err := d.stop(); err != nil {
		return err
	}
	return d.f.Truncate(d.size)
}
