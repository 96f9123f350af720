package image

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/halevm/hale/api"
)

// The parts of a name, as registries take them (distribution/reference); the parser alone takes more.
var (
	hostForm = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(:[0-9]+)?$`)
	pathForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// maxRepository is the longest path of a repository, in bytes (distribution/reference).
const maxRepository = 255

// Normalize completes a reference as people write it: nginx is docker.io/library/nginx:latest. One with a digest keeps
// it instead of a tag. The error is an *api.Error of kind Invalid with code invalid_image_name.
func Normalize(ref string) (string, error) {
	r, err := name.ParseReference(ref)
	if err == nil {
		switch path := r.Context().RepositoryStr(); {
		case !hostForm.MatchString(r.Context().RegistryStr()) || !pathForm.MatchString(path):
			err = errors.New("its parts begin and end with a letter or a digit, and the path is in lower case")
		case len(path) > maxRepository: // the parser counts before it completes
			err = fmt.Errorf("the path is longer than %d characters", maxRepository)
		}
	}
	if err != nil {
		why := ": " + strings.TrimPrefix(err.Error(), "could not parse reference: ")
		if why == ": "+ref {
			why = "" // which is all that the parser says
		}
		return "", &api.Error{
			Kind: api.Invalid, Code: "invalid_image_name",
			Message: "the image reference " + quote(ref) + " is not valid" + why +
				"; want one such as nginx, nginx:1.27 or ghcr.io/owner/app@sha256:…, with the path in lower case",
		}
	}
	n := r.Name()
	if rest, ok := strings.CutPrefix(n, name.DefaultRegistry+"/"); ok {
		n = "docker.io/" + rest
	}
	return n, nil
}

// cutDigest splits a normalised reference at its digest.
func cutDigest(ref string) (repository, digest string, ok bool) { return strings.Cut(ref, "@") }

// repository is a normalised reference without its tag or digest.
func repository(ref string) string {
	if repo, _, ok := cutDigest(ref); ok {
		return repo
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

func sortedKeys[M ~map[string]V, V any](m M) []string { return slices.Sorted(maps.Keys(m)) }
