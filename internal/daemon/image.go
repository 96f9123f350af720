package daemon

import (
	"context"
	"fmt"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/instance"
)

// imageFinder shows the domain the images that are ready.
type imageFinder struct{ store *image.Store }

// Image returns the image that ref names.
func (f imageFinder) Image(_ context.Context, ref string) (instance.Image, error) {
	img, err := f.store.Find(ref)
	if err != nil {
		return instance.Image{}, err
	}
	switch img.Status {
	case image.Ready:
	case image.Failed:
		return instance.Image{}, &api.Error{Kind: api.Invalid, Code: "image_failed", Message: fmt.Sprintf("image %s cannot be used: %s", img.Ref, img.Error), NoRetry: true}
	default:
		return instance.Image{}, &api.Error{Kind: api.NotReady, Code: "image_not_ready", Message: fmt.Sprintf("image %s is %s", img.Ref, img.Status)}
	}
	return instance.Image{
		Ref: img.Ref, Digest: img.Digest, Disk: img.Disk, Platform: img.Platform,
		Entrypoint: img.Entrypoint, Cmd: img.Cmd, Env: img.Env, WorkingDir: img.WorkingDir, User: img.User, StopSignal: img.StopSignal,
		Healthcheck: img.Healthcheck, Shell: img.Shell,
	}, nil
}
