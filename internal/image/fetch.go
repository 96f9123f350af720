package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry"
)

// A fetch is one blob on its way, for the pull that began it and for all that want the same.
type fetch struct {
	done chan struct{}
	host string // of the registry that it comes from
	life *life  // of the pull that began it

	mu    sync.Mutex
	got   int64
	heard map[*func(got int64, n int)]bool
}

// listen has f told how much is here, now and whenever more comes, until stop is called.
func (f *fetch) listen(hear func(got int64, n int)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard[&hear] = true
	hear(f.got, 0)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.heard, &hear)
	}
}

func (f *fetch) tell(got int64, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = got
	for hear := range f.heard {
		(*hear)(got, n)
	}
}

// await waits for the fetch to end. slow is that it brings little, from another registry than host.
func (f *fetch) await(ctx context.Context, host string) (slow bool, err error) {
	here := func() int64 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.got
	}
	look := time.NewTicker(slowTime)
	defer look.Stop()
	for before := here(); ; {
		select {
		case <-f.done:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-look.C:
			now := here()
			if f.host != host && now-before < fairBytes {
				return true, nil
			}
			before = now
		}
	}
}

// Bounds of fetching blobs.
const (
	parallelFetches = 3 // of one image
	emptyTries      = 4 // in a row that bring nothing
	maxCuts         = 100
	maxPause        = 10 * time.Second
)

// fetchLayers fetches the layers that are not here, each as a blob of that digest.
func (s *Store) fetchLayers(p *pull, c *candidate) error {
	ctx, stop := p.life.watch(p.ctx, p.host, s.othersWait)
	defer stop()
	var total, missing int64
	for _, l := range c.layers {
		total += l.blob.size
		missing += s.missing(l.blob)
	}
	if free, err := freeSpace(s.dir); err == nil && free < missing {
		return &api.Error{Kind: api.Exhausted, Code: "insufficient_resources", NoRetry: true,
			Message: fmt.Sprintf("disk full: %d bytes of the image's layers are to be fetched, and %d bytes are free", missing, free)}
	}
	got := make([]int64, len(c.layers))
	m := newMeter(Receiving, total, func(q Progress) {
		s.mu.Lock()
		defer s.mu.Unlock()
		p.progress = q
		s.notify()
	})
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFetches)
	for i, l := range c.layers {
		g.Go(catching(func() error {
			err := s.fetchBlob(ctx, p, l.blob, func(now int64, n int) {
				p.life.shown(n)
				mu.Lock()
				before := got[i]
				got[i] = now
				mu.Unlock()
				m.add(now - before)
			})
			if err == nil {
				return nil
			}
			if c.urls[l.blob.sha256] {
				err = abroad(err)
			}
			return inLayer(ctx, l.number, err)
		}))
	}
	return g.Wait()
}

// inLayer says which layer a refusal is about.
func inLayer(ctx context.Context, number int, err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok && ctx.Err() == nil {
		in := *e
		in.Message = fmt.Sprintf("layer %d: %s", number, e.Message)
		return &in
	}
	return err
}

// abroad explains why a layer that its manifest places elsewhere cannot be had.
func abroad(err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		in := *e
		in.Message += "; the manifest says that the layer is elsewhere (urls), which is not followed"
		return &in
	}
	return err
}

// missing is how many bytes of a blob are not here.
func (s *Store) missing(b member) int64 {
	if s.hasBlob(b) {
		return 0
	}
	if info, err := os.Lstat(s.path(partialDir, b.sha256)); err == nil {
		return max(b.size-info.Size(), 0)
	}
	return b.size
}

func (s *Store) hasBlob(b member) bool {
	info, err := os.Lstat(b.file)
	return err == nil && info.Mode().IsRegular() && info.Size() == b.size
}

func freeSpace(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// fetchBlob sees to it that a blob is here. Of several pulls that want it one fetches it; should that fail, the next does. Where it comes
// slowly from another registry it is fetched from this one beside that, for a registry must not keep back what others have.
func (s *Store) fetchBlob(ctx context.Context, p *pull, b member, hear func(got int64, n int)) error {
	as := b.sha256
	for {
		s.mu.Lock()
		f, others := s.fetches[as]
		if !others {
			f = &fetch{done: make(chan struct{}), host: p.host, life: &p.life, heard: map[*func(int64, int)]bool{}}
			s.fetches[as] = f
		}
		s.mu.Unlock()
		if !others {
			return s.fetchFirst(ctx, p, b, as, f, hear)
		}
		stop := f.listen(hear)
		slow, err := f.await(ctx, p.host)
		if stop(); err != nil {
			return err
		}
		if slow {
			host := sha256.Sum256([]byte(p.host))
			as = b.sha256 + "." + hex.EncodeToString(host[:4])
		}
	}
}

// fetchFirst fetches a blob for all that want it. as is what the fetch is known by, and the file that it fills.
func (s *Store) fetchFirst(ctx context.Context, p *pull, b member, as string, f *fetch, hear func(got int64, n int)) error {
	defer func() {
		s.mu.Lock()
		delete(s.fetches, as)
		slower := s.fetches[b.sha256]
		s.mu.Unlock()
		close(f.done)
		if slower != nil && s.hasBlob(b) {
			slower.life.yield() // it finds the blob when it begins again
		}
	}()
	p.life.asks(1)
	defer p.life.asks(-1)
	f.listen(hear)
	if s.hasBlob(b) { // looked at last, for who fetched it may just have ended
		_ = os.Remove(s.path(partialDir, as)) // of another try
		hear(b.size, 0)
		return nil
	}
	return s.download(ctx, p, b, as, f)
}

// A download is a blob that comes in pieces.
type download struct {
	blob    member
	digest  string
	file    *os.File
	sum     hash.Hash // of what is in the file
	got     int64     // bytes in the file
	resumed bool      // the beginning is from an earlier attempt
}

// download fetches a blob into the directory of partial ones, from where an earlier attempt broke off, verifies it and puts
// it in its place.
func (s *Store) download(ctx context.Context, p *pull, b member, as string, f *fetch) error {
	d := &download{blob: b, digest: "sha256:" + b.sha256}
	if err := d.open(s.path(partialDir, as), p.life.shown); err != nil {
		return err
	}
	defer func() { d.file.Close() }()
	count := func(n int) {
		f.tell(d.got, n)
		s.mu.Lock()
		p.fetched += int64(n)
		s.mu.Unlock()
	}
	for {
		f.tell(d.got, 0)
		if err := d.fill(ctx, p.repo, count); err != nil {
			return err
		}
		sum := hex.EncodeToString(d.sum.Sum(nil))
		if sum == b.sha256 {
			break
		}
		wasResumed := d.resumed
		if err := d.restart(); err != nil {
			return err
		}
		if !wasResumed {
			_ = os.Remove(d.file.Name()) // or a sweep does
			return invalid("digest mismatch: the registry delivers a blob with the digest sha256:%s where %s was asked for", sum, d.digest)
		}
	}
	if err := p.life.during(func() error { return errors.Join(d.file.Sync(), d.file.Close()) }); err != nil {
		return err
	}
	s.writing.Lock() // or a sweep might meet it half-way
	defer s.writing.Unlock()
	if err := os.Rename(d.file.Name(), b.file); err != nil {
		return err
	}
	return syncDir(s.path(blobsDir))
}

// open takes up what is here of a blob. alive is told while that is read.
func (d *download) open(path string, alive func(int)) error {
	var err error
	if d.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600); err != nil {
		return err
	}
	d.sum = sha256.New()
	if d.got, err = io.Copy(tellingWriter{d.sum, alive}, d.file); err != nil {
		return errors.Join(err, d.file.Close())
	}
	if d.resumed = d.got > 0; d.got > d.blob.size {
		if err := d.restart(); err != nil {
			return errors.Join(err, d.file.Close())
		}
	}
	return nil
}

// A tellingWriter tells that it is used.
type tellingWriter struct {
	io.Writer
	tell func(int)
}

func (w tellingWriter) Write(p []byte) (int, error) {
	w.tell(0)
	return w.Writer.Write(p)
}

// restart forgets what is here.
func (d *download) restart() error {
	d.got, d.resumed = 0, false
	d.sum.Reset()
	_, err := d.file.Seek(0, io.SeekStart)
	return errors.Join(err, d.file.Truncate(0))
}

// fill fetches until the blob has its size, and goes on where the registry breaks off, as long as more comes of it.
func (d *download) fill(ctx context.Context, repo *registry.Repository, count func(int)) error {
	best, empty, pause := d.got, 0, tryPause
	for cuts := 0; d.got < d.blob.size; cuts++ {
		err := d.more(ctx, repo, count)
		switch {
		case err == nil && d.got == d.blob.size:
			return nil
		case err != nil && !registry.Temporary(err):
			return err
		case d.got > best:
			best, empty, pause = d.got, 0, tryPause
		default:
			empty++
		}
		if empty == emptyTries || cuts == maxCuts {
			if err == nil {
				err = invalid("size mismatch: the registry ends the blob %s after %d of the %d bytes of which the manifest speaks", d.digest, d.got, d.blob.size)
			}
			return err
		}
		if err := rest(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, maxPause)
	}
	return nil
}

// more is one request. It ends without an error where the registry ended what it sent.
func (d *download) more(ctx context.Context, repo *registry.Repository, count func(int)) error {
	body, start, err := repo.Blob(ctx, d.digest, d.got, d.blob.size)
	if err != nil {
		return err
	}
	defer body.Close()
	if start != d.got { // the registry knows no ranges
		if err := d.restart(); err != nil {
			return err
		}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if d.got+int64(n) > d.blob.size {
			return invalid("size mismatch: the registry sends more of the blob %s than the %d bytes of which the manifest speaks", d.digest, d.blob.size)
		}
		if n > 0 {
			if _, err := d.file.Write(buf[:n]); err != nil {
				return err
			}
			d.sum.Write(buf[:n])
			d.got += int64(n)
			count(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return repo.Broken(ctx, err)
		}
	}
}
