package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The disk's block, of which one that is all zeros needs no room on the host.
const blockSize = 4096

// What a disk in work takes in memory, whatever its size: two copiers, and two pieces for each of them.
const (
	pieceSize  = 512 << 10
	copiers    = 2
	maxPieces  = 2 * copiers
	syncedSize = 8 << 20 // the host is asked to begin with writing out when so much more is there
)

var zeros [blockSize]byte

// A diskFile is a new file that the writer of the file system writes mostly once from its beginning to its end. What it writes
// is cut into pieces; copiers put the content of files where a piece has tickets for it, and the piece into the file. Zeros
// beyond everything written so far become holes. Its methods are for one goroutine.
type diskFile struct {
	ctx    context.Context // ends with the first copier that fails, too
	f      *os.File
	marks  *tickets
	layers []*openLayer
	m      *meter

	pos  int64
	size int64 // everything beyond is zeros
	seen int   // tickets

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
	at    int64 // where it belongs
	buf   []byte
	fresh bool // nothing was there before
	runs  []run
}

// A run is content of one file that a piece misses.
type run struct {
	at   int // in the piece
	n    int
	file *placed
	from int64 // in the file
}

func newDiskFile(ctx context.Context, f *os.File, marks *tickets, layers []*openLayer, m *meter) *diskFile {
	d := &diskFile{f: f, marks: marks, layers: layers, m: m, free: make(chan *piece, maxPieces)}
	d.work, d.ctx = errgroup.WithContext(ctx)
	d.todo = make(chan *piece, maxPieces)
	for range copiers {
		d.work.Go(d.copy)
	}
	return d
}

// Write takes p over, and returns before it is in the file.
func (d *diskFile) Write(p []byte) (int, error) {
	if d.pos < d.size { // what is there may still be on its way
		if err := d.settle(); err != nil {
			return 0, err
		}
	}
	for done := 0; done < len(p); {
		next, err := d.piece()
		if err != nil {
			return done, err
		}
		part := p[done:min(len(p), done+pieceSize)]
		next.at, next.fresh, next.runs = d.pos, d.pos >= d.size, next.runs[:0]
		next.buf = next.buf[:len(part)]
		if err := d.take(next, part); err != nil {
			return done, err
		}
		done += len(part)
		d.pos += int64(len(part))
		d.size = max(d.size, d.pos)
		d.todo <- next // which has room for all pieces
	}
	return len(p), nil
}

// piece waits for one that is free.
func (d *diskFile) piece() (*piece, error) {
	if d.made < maxPieces {
		d.made++
		return &piece{buf: make([]byte, pieceSize)}, nil
	}
	select {
	case p := <-d.free:
		return p, nil
	case <-d.ctx.Done():
		return nil, d.failed()
	}
}

// take copies b into next, but what tickets stand for.
func (d *diskFile) take(next *piece, b []byte) error {
	plain := 0 // from here to at, there are no tickets
	for at := int(-d.pos & (blockSize - 1)); at < len(b); at += blockSize {
		block := b[at:min(len(b), at+blockSize)]
		file, from, ok := d.marks.read(block)
		if !ok {
			continue
		}
		n := int(min(blockSize, file.size-from))
		if n > len(block) {
			return fmt.Errorf("the writer of the file system tears the block at %d apart", d.pos+int64(at))
		}
		copy(next.buf[plain:], b[plain:at])
		plain = at + n
		d.seen++
		if i := len(next.runs) - 1; i >= 0 {
			if last := &next.runs[i]; last.file == file && last.at+last.n == at && last.from+int64(last.n) == from {
				last.n += n
				continue
			}
		}
		next.runs = append(next.runs, run{at: at, n: n, file: file, from: from})
	}
	copy(next.buf[plain:], b[plain:])
	return nil
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
	for at+n < len(p.buf) {
		chunk := min(len(p.buf)-at-n, int(blockSize-(p.at+int64(at+n))%blockSize))
		hole := p.fresh && bytes.Equal(p.buf[at+n:at+n+chunk], zeros[:chunk])
		if n > 0 && hole != skip {
			break
		}
		skip = hole
		n += chunk
	}
	return skip, n
}

// flush has the host begin with writing out, so that little is left to wait for in the end. It is advice: what cannot be written is
// told by finish.
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

func (d *diskFile) Read(p []byte) (int, error) {
	if err := d.settle(); err != nil {
		return 0, err
	}
	if d.pos >= d.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), d.size-d.pos)]
	n, err := d.f.ReadAt(p, d.pos)
	if err == io.EOF { // a hole at the end is not in the file yet
		clear(p[n:])
		n, err = len(p), nil
	}
	d.pos += int64(n)
	return n, err
}

func (d *diskFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += d.pos
	case io.SeekEnd:
		offset += d.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning of the disk")
	}
	d.pos = offset
	return offset, nil
}

// settle waits until everything that was written is in the file.
func (d *diskFile) settle() error {
	var all []*piece
	defer func() {
		for _, p := range all {
			d.free <- p
		}
	}()
	for range d.made {
		select {
		case p := <-d.free:
			all = append(all, p)
		case <-d.ctx.Done():
			return d.failed()
		}
	}
	return nil
}

// failed is why a copier, or everything, has ended.
func (d *diskFile) failed() error {
	if err := d.stop(); err != nil {
		return err
	}
	return context.Cause(d.ctx)
}

// stop ends the copiers, and returns what went wrong with one.
func (d *diskFile) stop() error {
	if !d.stopped {
		d.stopped = true
		close(d.todo)
	}
	return d.work.Wait()
}

// finish gives the file its size and puts it on the host's disk, once content has come for so many tickets.
func (d *diskFile) finish(tickets int) error {
	if err := d.stop(); err != nil {
		return err
	}
	if d.seen != tickets {
		return fmt.Errorf("the writer of the file system laid out %d of %d blocks", d.seen, tickets)
	}
	if err := d.f.Truncate(d.size); err != nil {
		return err
	}
	return d.f.Sync()
}
