package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The names by which an archive says what it is.
const (
	dockerManifest = "manifest.json" // docker-archive
	layoutFile     = "oci-layout"    // OCI image-spec, image-layout.md
	indexFile      = "index.json"
)

// The annotations by which an index says what a manifest is called.
const (
	containerdName = "io.containerd.image.name"
	ociRefName     = "org.opencontainers.image.ref.name"
)

// maxArchiveNames is how many names an archive may give to its images.
const maxArchiveNames = 1000

// maxIndexDepth is how many indexes may lie between index.json and a manifest.
const maxIndexDepth = 4

// A dockerEntry is one image in a docker-archive's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// parseManifest reads a manifest that is here, and sees that it can be followed.
func parseManifest(raw []byte) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, invalid("the image's manifest is not readable: %v", err)
	}
	if m.Config.Digest.Hex == "" {
		return nil, invalid("the image's manifest names no configuration")
	}
	return &m, nil
}

// synthesize makes the manifest that an image of a docker-archive does not have. It follows from the configuration and
// the inflated layers alone, so that the same image has the same digest however its layers were compressed.
func synthesize(config []byte, layers []*layer) (manifest []byte, digest string, err error) {
	hash, size := digestOf(config)
	m := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: hash, Size: size},
		Layers:        []v1.Descriptor{},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: l.diffID, Size: l.plainSize})
	}
	manifest, err = json.Marshal(m)
	if err != nil {
		return nil, "", err
	}
	hash, _ = digestOf(manifest)
	return manifest, hash.String(), nil
}

// dockerImages are the images of a docker-archive.
func (a *archive) dockerImages(ctx context.Context) ([]*candidate, error) {
	var entries []dockerEntry
	if err := a.decode(dockerManifest, &entries); err != nil {
		return nil, err
	}
	if err := a.listed(entries); err != nil {
		return nil, err
	}
	found := newGathered()
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c, err := a.dockerImage(e)
		if err != nil {
			return nil, err
		}
		if err := found.add(c); err != nil {
			return nil, err
		}
	}
	return some(found.images, dockerManifest)
}

func (a *archive) listed(entries []dockerEntry) error {
	if n := len(entries); n > a.limits.Listed {
		return tooLarge("%s of the archive names %d images; %d are possible", dockerManifest, n, a.limits.Listed)
	}
	return nil
}

func (a *archive) dockerImage(e dockerEntry) (*candidate, error) {
	m, ok := a.lookup(e.Config)
	if !ok {
		return nil, invalid("the archive lacks the configuration %s that its %s names", quote(e.Config), dockerManifest)
	}
	raw, err := a.read(m, e.Config)
	if err != nil {
		return nil, err
	}
	c := &candidate{config: raw}
	if c.names, err = normalizeAll(e.RepoTags); err != nil {
		return nil, err
	}
	blobs := make([]member, 0, len(e.Layers))
	for _, name := range e.Layers {
		m, ok := a.lookup(name)
		if !ok {
			return nil, invalid("the archive lacks the layer %s that its %s names", quote(name), dockerManifest)
		}
		blobs = append(blobs, m)
	}
	c.layers, err = pairLayers(raw, blobs, a.limits)
	return c, err
}

// pairLayers pairs the layers as they are stored with what the configuration says of them.
func pairLayers(config []byte, blobs []member, limits Limits) ([]*layer, error) {
	cf, err := parseConfig(config)
	if err == nil {
		err = cf.bounded(limits.Listed)
	}
	if err != nil {
		return nil, err
	}
	ids := cf.RootFS.DiffIDs
	if len(ids) != len(blobs) {
		return nil, invalid("the image has %d layers, and its configuration speaks of %d", len(blobs), len(ids))
	}
	if len(ids) > limits.Layers {
		return nil, tooLarge("the image has %d layers; %d are possible", len(ids), limits.Layers)
	}
	layers := make([]*layer, len(ids))
	for i, m := range blobs {
		if ids[i].Hex == "" {
			return nil, invalid("the image's configuration has no digest for layer %d", i+1)
		}
		layers[i] = &layer{number: i + 1, blob: m, diffID: ids[i]}
	}
	return layers, nil
}

// ociImages are the images for linux/amd64 of an OCI layout.
func (a *archive) ociImages(ctx context.Context) ([]*candidate, error) {
	var index v1.IndexManifest
	if err := a.decode(indexFile, &index); err != nil {
		return nil, err
	}
	if n := len(index.Manifests); n > a.limits.Listed {
		return nil, tooLarge("%s of the archive names %d images; %d are possible", indexFile, n, a.limits.Listed)
	}
	found := newGathered()
	var refused error
	for _, d := range index.Manifests {
		if isAttestation(d) {
			continue
		}
		c, err := a.resolve(ctx, d, 0)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			refused = err
			continue
		}
		if c.names, err = annotatedNames(d.Annotations); err != nil {
			return nil, err
		}
		if err := found.add(c); err != nil {
			return nil, err
		}
	}
	if refused != nil && (len(found.images) == 0 || !isPlatform(refused)) {
		return nil, refused
	}
	if err := a.adoptTags(found.images); err != nil {
		return nil, err
	}
	return some(found.images, indexFile)
}

// descended is a descriptor, below so many indexes, and resolved what it led to.
type (
	descended struct {
		digest v1.Hash
		size   int64
		index  bool
		depth  int
	}
	resolved struct {
		image *candidate
		err   error
	}
)

// resolve follows a descriptor to the one image for linux/amd64 below it. However many indexes name the same one, it is
// followed once: they would multiply.
func (a *archive) resolve(ctx context.Context, d v1.Descriptor, depth int) (*candidate, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if p := d.Platform; p != nil && p.OS+"/"+p.Architecture != amd64 {
		return nil, invalidPlatform("the image is for %s; only %s runs here", p, amd64)
	}
	at := descended{d.Digest, d.Size, d.MediaType.IsIndex(), depth}
	r, ok := a.known[at]
	if !ok {
		c, err := a.follow(ctx, d, depth)
		r = &resolved{c, err}
		a.known[at] = r
	}
	if r.err != nil {
		return nil, r.err
	}
	c := *r.image // for each is named by itself
	return &c, nil
}

func (a *archive) follow(ctx context.Context, d v1.Descriptor, depth int) (*candidate, error) {
	raw, err := a.blob(d)
	if err != nil {
		return nil, err
	}
	if !d.MediaType.IsIndex() {
		return a.ociImage(d.Digest.String(), raw)
	}
	if depth == maxIndexDepth {
		return nil, invalid("the indexes of the archive are nested deeper than %d", maxIndexDepth)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, invalid("the index %s is not readable: %v", d.Digest, err)
	}
	if n := len(index.Manifests); n > a.limits.Listed {
		return nil, tooLarge("the index %s names %d images; %d are possible", d.Digest, n, a.limits.Listed)
	}
	err = invalid("the index %s names no image", d.Digest)
	for _, sub := range index.Manifests {
		if isAttestation(sub) {
			continue
		}
		var c *candidate
		if c, err = a.resolve(ctx, sub, depth+1); err == nil || !isPlatform(err) {
			return c, err
		}
	}
	return nil, err
}

func (a *archive) ociImage(digest string, raw []byte) (*candidate, error) {
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	if !m.Config.MediaType.IsConfig() {
		return nil, invalid("%s is no image: its configuration is of type %s", digest, quote(string(m.Config.MediaType)))
	}
	config, err := a.blob(m.Config)
	if err != nil {
		return nil, err
	}
	c := &candidate{digest: digest, manifest: raw, config: config}
	blobs := make([]member, 0, len(m.Layers))
	for _, d := range m.Layers {
		if strings.HasSuffix(string(d.MediaType), "+encrypted") {
			return nil, invalid("the layer %s is encrypted", d.Digest)
		}
		b, err := a.described(d)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, b)
	}
	c.layers, err = pairLayers(config, blobs, a.limits)
	return c, err
}

// described finds a descriptor's blob and verifies it.
func (a *archive) described(d v1.Descriptor) (member, error) {
	if d.Digest.Algorithm != "sha256" || d.Digest.Hex == "" {
		return member{}, invalid("the archive names a blob by %s; only sha256 is known here", quote(d.Digest.String()))
	}
	m, ok := a.lookup("blobs/sha256/" + d.Digest.Hex)
	switch {
	case !ok:
		return m, invalid("the archive lacks the blob %s", d.Digest)
	case m.sha256 != d.Digest.Hex:
		return m, invalid("the blob %s is damaged: its content has the digest sha256:%s", d.Digest, m.sha256)
	case m.size != d.Size:
		return m, invalid("the blob %s has %d bytes, and the archive speaks of %d", d.Digest, m.size, d.Size)
	}
	return m, nil
}

func (a *archive) blob(d v1.Descriptor) ([]byte, error) {
	m, err := a.described(d)
	if err != nil {
		return nil, err
	}
	return a.read(m, d.Digest.String())
}

// adoptTags names images that the index does not name, from the manifest.json that docker save writes beside it.
func (a *archive) adoptTags(found []*candidate) error {
	if _, ok := a.lookup(dockerManifest); !ok || !slices.ContainsFunc(found, func(c *candidate) bool { return len(c.names) == 0 }) {
		return nil
	}
	var entries []dockerEntry
	if err := a.decode(dockerManifest, &entries); err != nil {
		return err
	}
	if err := a.listed(entries); err != nil {
		return err
	}
	tags := make(map[string][]string) // by the digests of the configurations without a name
	for _, c := range found {
		if hash, _ := digestOf(c.config); len(c.names) == 0 {
			tags[hash.Hex] = nil
		}
	}
	for _, e := range entries {
		m, ok := a.lookup(e.Config)
		if names, wanted := tags[m.sha256]; !ok || !wanted || len(names) > 0 {
			continue
		}
		names, err := normalizeAll(e.RepoTags)
		if err != nil {
			return err
		}
		tags[m.sha256] = names
	}
	for _, c := range found {
		if len(c.names) == 0 {
			hash, _ := digestOf(c.config)
			c.names = tags[hash.Hex]
		}
	}
	return nil
}

// annotatedNames is what an index calls a manifest. A bare tag, which tools write too, is no name.
func annotatedNames(annotations map[string]string) ([]string, error) {
	name := annotations[containerdName]
	if name == "" {
		if name = annotations[ociRefName]; !strings.ContainsAny(name, "/:") {
			return nil, nil
		}
	}
	return normalizeAll([]string{name})
}

// normalizeAll leaves out what names by a digest: that is no name to keep.
func normalizeAll(refs []string) ([]string, error) {
	if len(refs) > maxArchiveNames {
		return nil, tooManyNames(len(refs))
	}
	var names []string
	seen := make(map[string]bool, len(refs))
	for _, r := range refs {
		name, err := Normalize(r)
		if err != nil {
			return nil, fmt.Errorf("the archive: %w", err)
		}
		if _, _, ok := cutDigest(name); !ok && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, nil
}

func tooManyNames(n int) error {
	return tooLarge("the archive gives %d names to its images; %d are possible", n, maxArchiveNames)
}

// gathered are the images of an archive, each once, under all its names.
type gathered struct {
	images []*candidate
	same   map[string]*candidate // by digest and configuration
	named  map[string]*candidate
}

func newGathered() *gathered {
	return &gathered{same: make(map[string]*candidate), named: make(map[string]*candidate)}
}

// add adds an image; one that is there already, under another name, gets that name too.
func (g *gathered) add(c *candidate) error {
	names := c.names
	hash, _ := digestOf(c.config)
	key := c.digest + " " + hash.Hex
	f := g.same[key]
	if f == nil {
		f, c.names = c, nil
		g.same[key] = c
		g.images = append(g.images, c)
	}
	for _, name := range names {
		switch g.named[name] {
		case nil:
			g.named[name] = f
			f.names = append(f.names, name)
		case f:
		default:
			return invalid("the archive calls two different images %s", name)
		}
	}
	return nil
}

func some(found []*candidate, file string) ([]*candidate, error) {
	names := 0
	for _, c := range found {
		names += len(c.names)
	}
	switch {
	case len(found) == 0:
		return nil, invalid("%s of the archive names no image", file)
	case names > maxArchiveNames:
		return nil, tooManyNames(names)
	}
	return found, nil
}

// isAttestation reports whether a descriptor is what buildkit says about an image, and not an image.
func isAttestation(d v1.Descriptor) bool {
	p := d.Platform
	return d.Annotations["vnd.docker.reference.type"] != "" || p != nil && p.OS == "unknown" && p.Architecture == "unknown"
}

func digestOf(data []byte) (v1.Hash, int64) {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}, int64(len(data))
}
