package image

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/halevm/hale/api"
)

// An archive is what an import received, member by member, in files of the staging directory.
type archive struct {
	members map[string]member // by their cleaned names; of two with one name the last counts
	limits  Limits
	parsed  int64                   // bytes of manifests, indexes and configurations that were read
	known   map[descended]*resolved // what descriptors led to
}

// A member is a file of an archive, or a link to one.
type member struct {
	file   string // where it lies
	size   int64
	sha256 string     // in hexadecimal
	early  *earlyTree // of a layer that is not compressed; may be nil
	link   string     // to what name it leads instead, cleaned
}

// maxArchiveSlack is what an archive may hold beside its layers, and maxMemberNames what the names of its members and what its links
// lead to may have together: they are kept in memory.
const (
	maxArchiveSlack = 64 << 20
	maxMemberNames  = 4 << 20
)

// receive writes an archive's members to the staging directory as they arrive, hashing them.
func receive(ctx context.Context, r io.Reader, st *staging, limits Limits, m *meter) (*archive, error) {
	a := &archive{members: make(map[string]member), limits: limits, known: make(map[descended]*resolved)}
	in := &metered{ctx: ctx, r: r, m: m}
	outer, err := decompress(in)
	if err != nil {
		return nil, a.unreadable(in, err)
	}
	defer outer.Close()
	body := &measured{r: outer, in: in, limits: limits}
	tr := tar.NewReader(body)
	early := newEarlyBudget()
	left, names := limits.Plain+maxArchiveSlack, maxMemberNames
	for n := 0; ; n++ {
		h, err := nextHeader(tr)
		if err == io.EOF {
			// The rest is read so that a checksum at the end is checked and who sends can finish.
			if _, err := io.CopyN(io.Discard, body, maxArchiveSlack); err != nil && err != io.EOF {
				return nil, a.unreadable(in, err)
			}
			return a, nil
		}
		if err != nil {
			return nil, a.unreadable(in, err)
		}
		if n == limits.Members {
			return nil, tooLarge("the archive has more than %d members", limits.Members)
		}
		if names -= len(h.Name) + len(h.Linkname); names < 0 {
			return nil, tooLarge("the names of the archive's members, and what its links lead to, have more than %d bytes", maxMemberNames)
		}
		if isSparse(h) { // holes cost whoever sends them nothing, and would be written as zeros
			return nil, invalid("the archive's member %s is a sparse file, which no member can be; write the archive without holes (tar without --sparse)", quote(h.Name))
		}
		name := clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			if left -= h.Size; left < 0 {
				return nil, tooLarge("the archive holds more than %d bytes", limits.Plain+maxArchiveSlack)
			}
			mem, err := storeMember(ctx, tr, h.Size, st, early)
			if err != nil {
				return nil, a.unreadable(in, err)
			}
			a.put(name, mem)
		case tar.TypeSymlink: // relative to where it is
			a.put(name, member{link: clean(path.Join(path.Dir(name), h.Linkname))})
		case tar.TypeLink: // relative to the root
			a.put(name, member{link: clean(h.Linkname)})
		}
	}
}

// A measured reader refuses an archive that inflates beyond measure while it arrives. It cannot know yet how much
// compressed data follows, and so allows more in the beginning than a layer may have in all.
type measured struct {
	r      io.Reader
	in     *metered // what r inflates
	n      int64    // bytes read from r
	limits Limits
}

func (r *measured) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.n += int64(n)
	if r.n > max(r.in.n*r.limits.Ratio, 16*r.limits.RatioMin) {
		return 0, tooLarge("the archive inflates to more than %d times its size", r.limits.Ratio)
	}
	return n, err
}

// nextHeader is tr.Next, without its opinion on names: none of them becomes a path.
func nextHeader(tr *tar.Reader) (*tar.Header, error) {
	h, err := tr.Next()
	if errors.Is(err, tar.ErrInsecurePath) {
		err = nil
	}
	return h, err
}

func (a *archive) put(name string, m member) {
	if old, ok := a.members[name]; ok && old.file != "" {
		_ = os.Remove(old.file) // else it goes with the staging directory
	}
	a.members[name] = m
}

// unreadable says that the archive broke off or is no tar, unless it could not be read or the disk is full.
func (a *archive) unreadable(in *metered, err error) error {
	if refused, ok := errors.AsType[*api.Error](err); ok {
		return refused
	}
	if ours(err) || in.err != nil && !errors.Is(in.err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("receive the archive: %w", err)
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("the archive ends in the middle; it was cut off on its way")
	case errors.Is(err, tar.ErrHeader) && len(a.members) == 0:
		return invalid("this is not an archive of an image: a tar is expected, as docker save writes it, or of an OCI layout")
	}
	return invalid("the archive is damaged: %v", err)
}

// storeMember writes one member to a file of its own. Should it be a layer that is not compressed, its tree is made on the way.
func storeMember(ctx context.Context, r io.Reader, size int64, st *staging, early *budget) (member, error) {
	f, err := st.create()
	if err != nil {
		return member{}, err
	}
	defer f.Close()
	var pass func([]byte)
	var following *follower
	if size > windowSize { // else it is read again in no time
		following = follow(ctx, early)
		defer following.drop()
		pass = following.pass
	}
	w := newSideWriter(f, pass)
	defer w.stop()
	if _, err := w.ReadFrom(r); err != nil {
		return member{}, err
	}
	m := member{file: f.Name()}
	if m.sha256, err = w.finish(); err != nil {
		return member{}, err
	}
	m.size = w.n
	if following != nil {
		m.early = following.finish()
	}
	return m, f.Close()
}

// lookup finds a member by its name, through the links that old versions of docker save make between layers.
func (a *archive) lookup(name string) (member, bool) {
	name = clean(name)
	for range 8 {
		m, ok := a.members[name]
		if !ok || m.link == "" {
			return m, ok
		}
		name = m.link
	}
	return member{}, false
}

// read returns a member that is small. What is named often is read often, and so all reading together has an end.
func (a *archive) read(m member, name string) ([]byte, error) {
	if m.size > a.limits.JSON {
		return nil, tooLarge("%s in the archive has %d bytes; %d are possible", quote(name), m.size, a.limits.JSON)
	}
	if a.parsed += m.size; a.parsed > a.limits.Parsed {
		return nil, tooLarge("the archive's manifests, indexes and configurations have more than %d bytes, each counted as often as it is named", a.limits.Parsed)
	}
	return os.ReadFile(m.file)
}

// decode reads a member that is JSON.
func (a *archive) decode(name string, v any) error {
	m, ok := a.lookup(name)
	if !ok {
		return invalid("the archive has no %s", name)
	}
	raw, err := a.read(m, name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return invalid("%s in the archive is not readable: %v", name, err)
	}
	return nil
}

// images says what is in the archive. One that is both an OCI layout and a docker-archive is taken for the former,
// which has digests for everything.
func (a *archive) images(ctx context.Context) ([]*candidate, error) {
	_, layout := a.lookup(layoutFile)
	_, index := a.lookup(indexFile)
	_, docker := a.lookup(dockerManifest)
	switch {
	case layout && index:
		return a.ociImages(ctx)
	case docker:
		return a.dockerImages(ctx)
	case layout || index:
		return nil, invalid("the archive is half an OCI layout: of %s and %s one is missing", layoutFile, indexFile)
	}
	return nil, invalid("the archive holds no image: neither %s of docker save nor %s of an OCI layout is in it", dockerManifest, indexFile)
}

// The magic numbers of the compressions that layers come in.
const (
	gzipMagic = "\x1f\x8b"
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// maxWindow bounds the memory that a zstd frame may ask for.
const maxWindow = 128 << 20

// decompress reads r as what its first bytes say that it is.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, windowSize)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(magic), gzipMagic):
		return gzip.NewReader(br)
	case string(magic) == zstdMagic:
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}
