package image

import (
	"time"
)

// Tag makes target, a reference with a tag, stand for the image of ref too, whatever it stood for before. An image that is not
// ready is a conflict.
func (s *Store) Tag(ref, target string) (Image, error) {
	name, err := Normalize(target)
	if err != nil {
		return Image{}, err
	}
	if _, _, ok := cutDigest(name); ok {
		return Image{}, badName("a further name has a tag and no digest: %s", quote(target))
	}
	img, err := s.Find(ref)
	if err != nil {
		return Image{}, err
	}
	if img.Status != Ready {
		return Image{}, notReady("image %s is %s; it gets further names once it is ready", img.Ref, img.Status)
	}
	err = s.update(func(refs map[string]record) error {
		r, ok := refs[img.Ref]
		if !ok || r.Digest != img.Digest {
			return notFound(ref)
		}
		if name != img.Ref {
			refs[name] = record{Digest: r.Digest, CreatedAt: time.Now().UTC(), Tags: r.Tags}
		}
		return nil
	})
	if err != nil {
		return Image{}, refusal(err)
	}
	s.sweep() // the name may have been the last one of what it stood for
	return s.Find(name)
}
