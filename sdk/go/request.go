package hale

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/oapi-codegen/runtime"

	"github.com/halevm/hale/api"
)

// A builder makes one request; the generated methods fill it in. The first error stays.
type builder struct {
	method, path string // path with {name} for each segment
	fragments    []string
	head         http.Header
	content      io.Reader
	err          error
}

// segment puts a value into the path.
func (b *builder) segment(name, value string) {
	if value == "" || value == "." || value == ".." {
		b.fail(fmt.Errorf("%q is no %s: %w", value, map[string]string{"id": "instance"}[name]+map[string]string{"name": "image"}[name], api.Invalid))
		return
	}
	escaped, err := runtime.StyleParamWithOptions("simple", false, name, value, runtime.StyleParamOptions{ParamLocation: runtime.ParamLocationPath})
	if err != nil {
		b.fail(err)
		return
	}
	b.path = strings.Replace(b.path, "{"+name+"}", escaped, 1)
}

// query adds a parameter in the style that the API describes it in.
func (b *builder) query(style string, explode bool, name string, value any) {
	fragment, err := runtime.StyleParamWithOptions(style, explode, name, value, runtime.StyleParamOptions{ParamLocation: runtime.ParamLocationQuery})
	if err != nil {
		b.fail(fmt.Errorf("query parameter %s: %w", name, err))
	}
	if fragment != "" {
		b.fragments = append(b.fragments, fragment)
	}
}

func (b *builder) header(name, value string) {
	if value == "" {
		return
	}
	if b.head == nil {
		b.head = http.Header{}
	}
	b.head.Set(name, value)
}

func (b *builder) json(body any) {
	buf, err := json.Marshal(body)
	if err != nil {
		b.fail(fmt.Errorf("encode the request: %w", err))
		return
	}
	b.body("application/json", bytes.NewReader(buf))
}

func (b *builder) body(contentType string, body io.Reader) {
	b.header("Content-Type", contentType)
	b.content = body
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) build(ctx context.Context, c *Client) (*http.Request, error) {
	if b.err != nil {
		return nil, b.err
	}
	target := c.base.String() + b.path
	if len(b.fragments) > 0 {
		target += "?" + strings.Join(b.fragments, "&")
	}
	req, err := http.NewRequestWithContext(ctx, b.method, target, b.content)
	if err != nil {
		return nil, err
	}
	if b.head != nil {
		req.Header = b.head
	}
	c.identify(req.Header)
	return req, nil
}

// identify says who asks.
func (c *Client) identify(h http.Header) {
	h.Set("User-Agent", c.userAgent)
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
}
