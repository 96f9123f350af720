package hale

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/halevm/hale/api"
)

// Images lists images that have all of the tags.
func (c *Client) Images(ctx context.Context, tags map[string]string) ([]api.Image, error) {
	req, err := c.listImages(ctx, api.ListImagesParams{Tags: tags})
	return call[[]api.Image](c, req, err)
}

// Image describes an image. With a wait above 0 it answers once the image is ready or failed, or that time has passed.
func (c *Client) Image(ctx context.Context, name string, wait time.Duration) (api.Image, error) {
	var params api.GetImageParams
	if wait > 0 {
		params.Wait = given(wait.String())
	}
	req, err := c.getImage(ctx, name, params)
	return call[api.Image](c, req, err)
}

// PullImage makes the server pull an image; its status tells how far that is. What the registry refuses within 10 s is the error.
// A name that is there already stands for what is there until the pull has ended; the new image is found by its digest.
func (c *Client) PullImage(ctx context.Context, r api.CreateImageRequest) (api.Image, error) {
	req, err := c.createImage(ctx, r)
	return call[api.Image](c, req, err)
}

// TagImage gives an image a further name, target, and returns it under that.
func (c *Client) TagImage(ctx context.Context, name, target string) (api.Image, error) {
	req, err := c.tagImage(ctx, name, api.TagImageRequest{Target: target})
	return call[api.Image](c, req, err)
}

// DeleteImage deletes an image. One that an instance uses is an error of kind api.Conflict.
func (c *Client) DeleteImage(ctx context.Context, name string) error {
	req, err := c.deleteImage(ctx, name)
	return c.send(req, err)
}

// An Import says how an image is imported; all of it is optional.
type Import struct {
	Name string // the reference to give to the image; "": the one that the file names
	Size int64  // of the file in bytes, where it is known; an *os.File says it itself
	// Progress is told how many bytes have been sent, as they are, from one goroutine.
	Progress func(sent int64)
}

// ImportImage sends a tar of one image (what `docker save` writes, or an OCI layout) and returns the image, of which the disk is
// being made. An error of r is returned as it is.
func (c *Client) ImportImage(ctx context.Context, r io.Reader, i Import) (api.Image, error) {
	up := &upload{r: r, progress: i.Progress}
	req, err := c.importImage(ctx, api.ImportImageParams{Name: given(i.Name)}, "application/x-tar", up)
	if err != nil {
		return api.Image{}, err
	}
	if i.Size > 0 {
		req.ContentLength = i.Size
	} else if f, ok := r.(*os.File); ok {
		req.ContentLength = rest(f)
	}
	req.Header.Set("Expect", "100-continue") // what would be refused at once is not sent first
	img, err := call[api.Image](c, req, nil)
	if readErr := up.failed(); err != nil && readErr != nil {
		if _, refused := err.(*Error); !refused {
			err = readErr
		}
	}
	return img, err
}

// rest is how many bytes a file has from where it is read next; 0 where it cannot say.
func rest(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0
	}
	return max(0, info.Size()-at)
}

// An upload is the body of an import: it counts what is sent and remembers why its reader failed.
type upload struct {
	r        io.Reader
	progress func(int64)
	sent     int64

	mu     sync.Mutex
	err    error
	closed bool
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	closed := u.closed
	u.mu.Unlock()
	if closed {
		return 0, io.ErrClosedPipe
	}
	n, err := u.r.Read(p)
	if n > 0 {
		u.sent += int64(n)
		if u.progress != nil {
			u.progress(u.sent)
		}
	}
	if err != nil && err != io.EOF {
		u.mu.Lock()
		u.err = err
		u.mu.Unlock()
	}
	return n, err
}

// Close is called by the transport when it is done with the body; the reader stays the caller's.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	return nil
}

func (u *upload) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}
