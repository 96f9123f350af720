package image

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/halevm/hale/internal/registry"
)

// resolve asks the registry what a name stands for: the manifest for linux/amd64, and the configuration.
func (s *Store) resolve(p *pull) (*candidate, error) {
	host, path, at, err := parts(p.name)
	if err != nil {
		return nil, err
	}
	auth, err := s.credentials(p, host, path)
	if err != nil {
		return nil, err
	}
	p.host = host
	p.repo = s.o.Registry.Repository(host, path, auth, p.life.heard)
	ctx, stop := p.life.watch(p.ctx, host, nil)
	defer stop()
	m, err := s.manifest(ctx, p.repo, at)
	if err != nil {
		return nil, err
	}
	config, err := patiently(ctx, func() ([]byte, error) {
		return p.repo.Config(ctx, m.Config.Digest.String(), m.Config.Size, s.o.Limits.JSON)
	})
	if err != nil {
		return nil, err
	}
	c := &candidate{names: []string{p.name}, digest: m.digest, manifest: m.raw, config: config, urls: map[string]bool{}}
	blobs := make([]member, 0, len(m.Layers))
	for _, d := range m.Layers {
		blobs = append(blobs, member{file: s.path(blobsDir, d.Digest.Hex), size: d.Size, sha256: d.Digest.Hex})
		c.urls[d.Digest.Hex] = len(d.URLs) > 0
	}
	c.layers, err = pairLayers(config, blobs, s.o.Limits)
	return c, err
}

// A fetchedManifest is an image's manifest with its bytes.
type fetchedManifest struct {
	*v1.Manifest
	raw    []byte
	digest string
}

// manifest follows a tag or digest, through indexes, to the manifest of one image.
func (s *Store) manifest(ctx context.Context, repo *registry.Repository, at string) (fetchedManifest, error) {
	size := int64(-1)
	for depth := 0; ; depth++ {
		got, err := patiently(ctx, func() (registry.Manifest, error) { return repo.Manifest(ctx, at, s.o.Limits.JSON) })
		if err != nil {
			return fetchedManifest{}, err
		}
		if size >= 0 && int64(len(got.Raw)) != size {
			return fetchedManifest{}, invalid("size mismatch: the manifest %s has %d bytes, and the index says %d", got.Digest, len(got.Raw), size)
		}
		index, m, err := readManifest(got.Raw, got.MediaType, s.o.Limits)
		if err != nil {
			return fetchedManifest{}, err
		}
		if m != nil {
			return fetchedManifest{m, got.Raw, got.Digest}, nil
		}
		if depth == maxIndexDepth {
			return fetchedManifest{}, invalid("the indexes of the image are nested deeper than %d", maxIndexDepth)
		}
		d, err := choose(index)
		if err != nil {
			return fetchedManifest{}, err
		}
		at, size = d.Digest.String(), d.Size
	}
}

// tries is how often a registry that is at fault itself is asked for a small thing, and tryPause what lies between at first.
const (
	tries    = 3
	tryPause = 500 * time.Millisecond
)

// patiently asks again where that may help.
func patiently[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	for n, pause := 1, tryPause; ; n, pause = n+1, 2*pause {
		v, err := ask()
		if err == nil || n == tries || !registry.Temporary(err) {
			return v, err
		}
		if cause := rest(ctx, pause); cause != nil {
			return v, cause
		}
	}
}

// rest waits, unless ctx ends before.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readManifest reads what a registry delivered: an index, or the manifest of an image whose parts can all be fetched.
func readManifest(raw []byte, said types.MediaType, limits Limits) (*v1.IndexManifest, *v1.Manifest, error) {
	var head struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Config    json.RawMessage   `json:"config"`
		Layers    []json.RawMessage `json:"layers"`
		FSLayers  json.RawMessage   `json:"fsLayers"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, nil, invalid("not an image: what the registry delivers as %s is not a manifest", quote(string(said)))
	}
	kind := head.MediaType
	if kind == "" {
		kind = said
	}
	isImage := head.Config != nil || head.Layers != nil
	switch {
	case head.FSLayers != nil || kind.IsSchema1():
		return nil, nil, invalid("not an image that can be read: its manifest is of docker's schema 1, which is obsolete; push it again")
	case head.Manifests != nil && isImage:
		return nil, nil, invalid("not an image: its manifest is an index as well")
	case len(head.Manifests) > limits.Listed:
		return nil, nil, tooLarge("too large: the image's index names %d images; %d are possible", len(head.Manifests), limits.Listed)
	case len(head.Layers) > limits.Layers:
		return nil, nil, tooLarge("too large: the image has %d layers; %d are possible", len(head.Layers), limits.Layers)
	case head.Manifests != nil && !kind.IsImage() || kind.IsIndex() && !isImage:
		var index v1.IndexManifest
		if err := json.Unmarshal(raw, &index); err != nil {
			return nil, nil, invalid("the image's index is not readable: %v", err)
		}
		return &index, nil, nil
	case head.Config != nil && !kind.IsIndex():
		m, err := parseManifest(raw)
		if err != nil {
			return nil, nil, err
		}
		return nil, m, checkManifest(m, limits)
	}
	return nil, nil, invalid("not an image: the registry delivers something of the type %s", quote(string(kind)))
}

// checkManifest sees that what a manifest names can be asked for.
func checkManifest(m *v1.Manifest, limits Limits) error {
	if !m.Config.MediaType.IsConfig() {
		return invalid("not an image: its configuration is of the type %s", quote(string(m.Config.MediaType)))
	}
	var total int64
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		switch {
		case d.Digest.Algorithm != "sha256" || !isHex(d.Digest.Hex):
			return invalid("the image's manifest names a blob by %s; only sha256 is known here", quote(d.Digest.String()))
		case d.Size < 0:
			return invalid("the image's manifest says that the blob %s has %d bytes", d.Digest, d.Size)
		case strings.HasSuffix(string(d.MediaType), "+encrypted"):
			return invalid("the layer %s is encrypted", d.Digest)
		}
		if total += min(d.Size, limits.Plain+1); total > limits.Plain {
			return tooLarge("too large: the image's layers have more than %d bytes", limits.Plain)
		}
	}
	return nil
}

// isHex reports whether s is a sha256 as it is written.
func isHex(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(c rune) bool { return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') })
}

// choose finds the image for linux/amd64 in an index. Of several variants the plain one is taken: a processor may lack what
// another one needs.
func choose(index *v1.IndexManifest) (v1.Descriptor, error) {
	var best, unsaid *v1.Descriptor
	var others []string
	for i, d := range index.Manifests {
		if isAttestation(d) || d.Digest.Algorithm != "sha256" || !isHex(d.Digest.Hex) || d.Size < 0 {
			continue
		}
		p := d.Platform
		switch {
		case p == nil || p.OS == "" && p.Architecture == "":
			if unsaid == nil {
				unsaid = &index.Manifests[i]
			}
		case p.OS+"/"+p.Architecture == amd64:
			if best == nil || !plainVariant(best) && plainVariant(&d) {
				best = &index.Manifests[i]
			}
		default:
			if s := quote(p.String()); len(others) < 10 && !slices.Contains(others, s) {
				others = append(others, s)
			}
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case unsaid != nil:
		return *unsaid, nil // its configuration tells
	case len(others) > 0:
		return v1.Descriptor{}, invalidPlatform("the image is for %s; only %s runs here", strings.Join(others, ", "), amd64)
	}
	return v1.Descriptor{}, invalid("not an image: its index names none")
}

func plainVariant(d *v1.Descriptor) bool {
	return d.Platform.Variant == "" || d.Platform.Variant == "v1"
}
