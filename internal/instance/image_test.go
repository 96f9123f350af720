package instance_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// Nobody sees an instance that is being created, but its image has a user.
func TestImageOfAnInstanceBeingCreatedIsInUse(t *testing.T) {
	h := newHost(t)
	begun, let := make(chan struct{}), make(chan struct{})
	h.driver = starter(func(ctx context.Context, c machine.Config) (instance.Machine, error) {
		begun <- struct{}{}
		<-let
		return h.fake.Start(ctx, c)
	})
	s := h.open()
	made := make(chan error)
	go func() {
		_, err := s.Create(t.Context(), spec("web", "sleep"))
		made <- err
	}()
	<-begun
	const ref, digest = "docker.io/library/sleep:latest", "sha256:sleep"
	if n := len(s.List()); n != 0 {
		t.Errorf("%d instances are seen", n)
	}
	for _, want := range []struct{ digest, ref, user string }{
		{digest, "", "web"}, {digest, ref, "web"}, {digest, "docker.io/library/other:latest", ""}, {"sha256:other", "", ""},
	} {
		if user := s.ImageUser(want.digest, want.ref); user != want.user {
			t.Errorf("image %s, %s is used by %q, want %q", want.digest, want.ref, user, want.user)
		}
	}
	close(let)
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "web", false); err != nil {
		t.Fatal(err)
	}
	if user := s.ImageUser(digest, ""); user != "" {
		t.Errorf("after its deletion the image is used by %q", user)
	}
}

// fleeting are images that look otherwise once somebody has found them.
type fleeting struct {
	asked *atomic.Int64
	then  func(instance.Image) (instance.Image, error)
}

func (f fleeting) Image(ctx context.Context, ref string) (instance.Image, error) {
	img, err := images{}.Image(ctx, ref)
	if f.asked.Add(1) > 1 && err == nil {
		return f.then(img)
	}
	return img, err
}

// An image that is deleted or replaced between a create's look at it and the moment from which it counts as used makes no
// instance without a disk.
func TestImageGoesWhileAnInstanceIsCreated(t *testing.T) {
	for name, c := range map[string]struct {
		then func(instance.Image) (instance.Image, error)
		want error
	}{
		"deleted": {func(instance.Image) (instance.Image, error) {
			return instance.Image{}, fmt.Errorf("gone: %w", api.NotFound)
		}, api.NotFound},
		"replaced": {func(i instance.Image) (instance.Image, error) { i.Digest = "sha256:new"; return i, nil }, api.NotReady},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.config = func(c2 *instance.Config) { c2.Images = fleeting{new(atomic.Int64), c.then} }
			s := h.open()
			if _, err := s.Create(t.Context(), spec("web", "sleep")); !errors.Is(err, c.want) {
				t.Errorf("created: %v", err)
			}
			if a := s.Allocated(); a.Instances != 0 || len(h.left()) != 0 || h.fake.Running() != 0 {
				t.Errorf("left: %+v, %v", a, h.left())
			}
		})
	}
}
