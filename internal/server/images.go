package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/image"
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

// CreateImage would pull.
func (s *Server) CreateImage(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, fmt.Errorf("pulling from a registry is not built yet; import the image from a file (`docker save IMAGE | hale import -`): %w", api.Unimplemented))
}

// ImportImage reads an archive from the body.
func (s *Server) ImportImage(w http.ResponseWriter, r *http.Request, p api.ImportImageParams) {
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
	var first api.Image
	if len(images) > 0 {
		first = renderImage(images[0])
	}
	for _, img := range images {
		first.Imported = append(first.Imported, img.Ref)
	}
	s.answer(w, r, http.StatusCreated, first, tooLarge(err))
}

// patient reads a body of any length as long as it goes on coming.
type patient struct {
	r  *http.Request
	rc *http.ResponseController
}

func (p *patient) Read(b []byte) (int, error) {
	p.rc.SetReadDeadline(time.Now().Add(importRead)) // not every connection has one
	n, err := p.r.Body.Read(b)
	if err != nil {
		// What watches for the client's going reads on while the disk is made.
		p.rc.SetReadDeadline(time.Time{})
	}
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
	for _, in := range s.config.Instances.List() {
		if in.Spec.ImageDigest == img.Digest && in.Spec.Image == img.Ref {
			s.fail(w, r, &api.Error{Kind: api.Conflict, Code: "image_in_use", NoRetry: true,
				Message: fmt.Sprintf("image %s is used by instance %q", img.Ref, in.Spec.Name)})
			return
		}
	}
	if err := s.config.Images.Delete(r.Context(), name); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
