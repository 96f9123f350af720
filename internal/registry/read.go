package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/halevm/hale/api"
)

// accepted are the forms of manifests and indexes that are asked for.
var accepted = []string{
	string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}

// A Manifest is a manifest or an index, as the registry delivered it.
type Manifest struct {
	Raw       []byte
	MediaType types.MediaType // as the answer's header says
	Digest    string          // of Raw, computed here
}

// Manifest fetches what a tag or a digest stands for, of at most limit bytes. What a digest names is verified.
func (r *Repository) Manifest(ctx context.Context, tagOrDigest string, limit int64) (Manifest, error) {
	sep, byDigest := ":", strings.HasPrefix(tagOrDigest, "sha256:")
	if byDigest {
		sep = "@"
	}
	what := r.path + sep + tagOrDigest
	resp, err := r.get(ctx, "manifests/"+tagOrDigest, http.Header{"Accept": accepted})
	if err != nil {
		return Manifest{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Manifest{}, r.refusal(resp, what)
	}
	raw, err := r.small(ctx, resp, limit, "the manifest of "+what)
	if err != nil {
		return Manifest{}, err
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	sum := sha256.Sum256(raw)
	m := Manifest{Raw: raw, MediaType: types.MediaType(strings.TrimSpace(kind)), Digest: "sha256:" + hex.EncodeToString(sum[:])}
	if byDigest && m.Digest != tagOrDigest {
		return Manifest{}, invalid("digest mismatch: the registry %s delivers a manifest with the digest %s where %s was asked for", r.host, m.Digest, tagOrDigest)
	}
	return m, nil
}

// small reads a whole answer of at most limit bytes.
func (r *Repository) small(ctx context.Context, resp *http.Response, limit int64, what string) ([]byte, error) {
	raw, err := io.ReadAll(&livingBody{resp.Body, r.alive, limit + 1})
	if err != nil {
		return nil, unreachable(ctx, quoteHost(resp.Request.URL.Host), err)
	}
	if int64(len(raw)) > limit {
		return nil, &api.Error{Kind: api.TooLarge, Code: "image_too_large", NoRetry: true, Message: fmt.Sprintf("too large: %s has more than %d bytes", what, limit)}
	}
	return raw, nil
}

// Config fetches a small blob whole, and verifies it.
func (r *Repository) Config(ctx context.Context, digest string, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, &api.Error{Kind: api.TooLarge, Code: "image_too_large", NoRetry: true, Message: fmt.Sprintf("too large: the image's configuration has %d bytes; %d are possible", size, limit)}
	}
	body, _, err := r.Blob(ctx, digest, 0, size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, size+1))
	if err != nil {
		return nil, unreachable(ctx, r.host, err)
	}
	if int64(len(raw)) != size {
		return nil, invalid("size mismatch: the image's configuration has %d bytes, and its manifest says %d", len(raw), size)
	}
	if sum := sha256.Sum256(raw); "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, invalid("digest mismatch: the image's configuration has the digest sha256:%x, and its manifest says %s", sum, digest)
	}
	return raw, nil
}

// Blob opens a blob of size bytes at a byte. The registry may begin earlier, at 0: where it does is returned. What comes is
// neither verified nor cut: it may be shorter, longer or something else.
func (r *Repository) Blob(ctx context.Context, digest string, offset, size int64) (body io.ReadCloser, start int64, err error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, size-1))
	}
	resp, err := r.get(ctx, "blobs/"+digest, header)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			resp.Body.Close()
		}
	}()
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		from, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != offset {
			return nil, 0, refused("the registry %s delivers another part of the blob %s than the one from byte %d on", r.host, digest, offset)
		}
		if total >= 0 && total != size {
			return nil, 0, sizeMismatch(digest, total, size)
		}
		start = offset
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return nil, 0, invalid("size mismatch: the registry %s has less of the blob %s than the %d bytes of which the manifest speaks", r.host, digest, size)
	case resp.StatusCode == http.StatusNotFound:
		return nil, 0, invalid("the registry %s lacks the blob %s, which the image's manifest names%s", r.host, digest, said(resp))
	default:
		return nil, 0, r.refusal(resp, "the blob "+digest)
	}
	if n := resp.ContentLength; n >= 0 && n != size-start {
		return nil, 0, sizeMismatch(digest, start+n, size)
	}
	return &livingBody{resp.Body, r.alive, size - start + 1}, start, nil
}

func sizeMismatch(digest string, has, says int64) error {
	return invalid("size mismatch: the registry has %d bytes of the blob %s, and the image's manifest says %d", has, digest, says)
}

// contentRange reads "bytes 5-9/10"; a total of -1 is not said.
func contentRange(s string) (from, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, cut := strings.Cut(s, "/")
	first, _, dash := strings.Cut(span, "-")
	if !ok || !cut || !dash {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, 0, false
	}
	if all == "*" {
		return from, -1, true
	}
	total, err = strconv.ParseInt(all, 10, 64)
	return from, total, err == nil && total >= 0
}

// A livingBody tells that bytes come, and ends after left of them.
type livingBody struct {
	io.ReadCloser
	alive func(int)
	left  int64
}

func (b *livingBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if n > 0 {
		b.alive(n)
	}
	return n, err
}

// Broken says why a blob's body broke off.
func (r *Repository) Broken(ctx context.Context, err error) error {
	return unreachable(ctx, r.host, err)
}
