package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/registry"
)

// maxImport bounds an uploaded archive. What it may unpack to is bounded by internal/image.
const maxImport = 32 << 30

// importRead is how long an upload may be silent.
const importRead = time.Minute

// ListImages lists what matches the tags.
func (s *Server) ListImages(w http.ResponseWriter, r *http.Request, p api.ListImagesParams) {
	list := []api.Image{}
	for _, img := range s.config.Images.List() {
		if tagged(img.Tags, p.Tags) {
			list = append(list, renderImage(img))
		}
	}
	writeJSON(w, http.StatusOK, list)
}

// manifestPatience is how long the answer to a pull waits for the manifest.
const manifestPatience = 10 * time.Second

// CreateImage pulls.
func (s *Server) CreateImage(w http.ResponseWriter, r *http.Request) {
	var q api.CreateImageRequest
	err := decode(w, r, &q)
	if err == nil {
		err = checkPull(q)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), manifestPatience)
	defer cancel()
	img, err := s.config.Images.Pull(ctx, q.Name, image.PullOptions{Auth: authOf(q.Credentials), Platform: string(q.Platform), Tags: q.Tags})
	s.answer(w, r, http.StatusAccepted, renderImage(img), err)
}

// maxSecret bounds each part of credentials.
const maxSecret = 32 << 10

func checkPull(q api.CreateImageRequest) error {
	var f faults
	if q.Name == "" {
		f.invalid("name", "an image reference is needed, such as nginx or docker.io/library/nginx:latest")
	}
	if q.Platform != "" && q.Platform != platform {
		f.add("invalid_platform", "platform", "this server runs "+platform)
	}
	f.tags(q.Tags)
	if c := q.Credentials; c != nil {
		for field, v := range map[string]string{"username": c.Username, "password": c.Password, "registry_token": c.RegistryToken} {
			if len(v) > maxSecret || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				f.invalid("credentials."+field, fmt.Sprintf("at most %d bytes, and no control characters", maxSecret))
			}
		}
		if c.Password != "" && c.Username == "" {
			f.invalid("credentials.username", "a password needs its user")
		}
	}
	return f.err()
}

// authOf are the credentials of a request; none, or empty ones, leave it to what the host has.
func authOf(c *api.RegistryCredentials) registry.Auth {
	if c == nil {
		return registry.Auth{}
	}
	auth := registry.WithSecret(c.Username, c.Password)
	auth.RegistryToken = c.RegistryToken
	return auth
}

// TagImage gives an image a further name.
func (s *Server) TagImage(w http.ResponseWriter, r *http.Request, name string) {
	var q api.TagImageRequest
	err := decode(w, r, &q)
	if err == nil && q.Target == "" {
		err = invalid("target", "an image reference with a tag, such as app:stable")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	img, err := s.config.Images.Tag(name, q.Target)
	s.answer(w, r, http.StatusOK, renderImage(img), err)
}

// ImportImage reads an archive from the body.
func (s *Server) ImportImage(w http.ResponseWriter, r *http.Request, p api.ImportImageParams) {
	if r.ContentLength > maxImport { // before any of it is sent
		s.fail(w, r, tooLarge(&http.MaxBytesError{Limit: maxImport}))
		return
	}
	bounded(w, r, maxImport)
	var name string
	if p.Name != nil {
		name = *p.Name
	}
	if name != "" {
		var f faults
		if _, err := image.Normalize(name); err != nil {
			f.add("invalid_image_name", "name", err.Error())
			s.fail(w, r, f.err())
			return
		}
	}
	images, err := s.config.Images.Import(r.Context(), &patient{r: r, rc: http.NewResponseController(w)}, image.ImportOptions{Name: name})
	if err != nil {
		hearOut(w, r)
	}
	var first api.Image
	if len(images) > 0 {
		first = renderImage(images[0])
	}
	for _, img := range images {
		first.Imported = append(first.Imported, img.Ref)
	}
	s.answer(w, r, http.StatusCreated, first, tooLarge(err))
}

// importDrain is how long a client may still send an archive that is refused already.
const importDrain = 5 * time.Second

// hearOut reads and drops what a client still sends. It would never see its answer else: a connection that is closed with something unread
// is reset. The deadline stays: net/http reads on before it sends the answer.
func hearOut(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(importDrain))
	io.Copy(io.Discard, r.Body)
}

// patient reads a body of any length as long as it goes on coming.
type patient struct {
	r  *http.Request
	rc *http.ResponseController
}

func (p *patient) Read(b []byte) (int, error) {
	p.rc.SetReadDeadline(time.Now().Add(importRead)) // not every connection has one
	n, err := p.r.Body.Read(b)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &api.Error{Kind: api.Invalid, Message: fmt.Sprintf("nothing of the archive came for %v", importRead)}
	case err != io.EOF && tooLarge(err) == err:
		err = &api.Error{Kind: api.Invalid, Message: "the archive broke off: " + err.Error()}
	}
	// What watches for the client's going reads on while the disk is made.
	p.rc.SetReadDeadline(time.Time{})
	return n, err
}

// GetImage shows one, and waits where it is asked to.
func (s *Server) GetImage(w http.ResponseWriter, r *http.Request, name string, p api.GetImageParams) {
	var patience time.Duration
	if p.Wait != nil && *p.Wait != "" {
		d, err := duration("wait", *p.Wait)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		patience = min(d, maxWait)
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	for {
		changed := s.config.Images.Changed()
		img, err := s.config.Images.Find(name)
		if err != nil || img.Status == image.Ready || img.Status == image.Failed || ctx.Err() != nil {
			s.answer(w, r, http.StatusOK, renderImage(img), err)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// DeleteImage removes a name, and what nothing names any more.
func (s *Server) DeleteImage(w http.ResponseWriter, r *http.Request, name string) {
	img, err := s.config.Images.Find(name)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if user := s.config.Instances.ImageUser(img.Digest, img.Ref); user != "" {
		s.fail(w, r, &api.Error{Kind: api.Conflict, Code: "image_in_use", NoRetry: true,
			Message: fmt.Sprintf("image %s is used by instance %q", img.Ref, user)})
		return
	}
	if err := s.config.Images.Delete(r.Context(), name); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
