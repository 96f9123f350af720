package image

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/store"
)

// The refusals of this package are *api.Error: the message is for the person who brought the image.

func invalid(format string, args ...any) error {
	return &api.Error{Kind: api.Invalid, Code: "invalid_image", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

func invalidPlatform(format string, args ...any) error {
	return &api.Error{Kind: api.Invalid, Code: "invalid_platform", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

func isPlatform(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Code == "invalid_platform"
}

func tooLarge(format string, args ...any) error {
	return &api.Error{Kind: api.TooLarge, Code: "image_too_large", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

func badName(format string, args ...any) error {
	return &api.Error{Kind: api.Invalid, Code: "invalid_image_name", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

func notReady(format string, args ...any) error {
	return &api.Error{Kind: api.Conflict, Code: "image_not_ready", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

func notFound(ref string) error {
	return &api.Error{Kind: api.NotFound, Code: "image_not_found", Message: fmt.Sprintf("there is no image %s here", quote(ref)), NoRetry: true}
}

// refusal makes err one that an API can answer with: what is wrong with a layer or where is no room becomes an
// *api.Error, anything else stays what it is.
func refusal(err error) error {
	if _, ok := errors.AsType[*api.Error](err); ok || err == nil {
		return err
	}
	switch {
	case errors.Is(err, errBadLayer):
		return invalid("%v", err)
	case store.NoSpace(err):
		return &api.Error{Kind: api.Exhausted, Code: "insufficient_resources", Message: "disk full: no room is left for the image where hale keeps its data", NoRetry: true}
	}
	return err
}

// full says that a store holds as much as it can.
func full(format string, args ...any) error {
	return &api.Error{Kind: api.Exhausted, Code: "insufficient_resources", Message: fmt.Sprintf(format, args...), NoRetry: true}
}

// ours reports whether the host or hale is at fault, and not what was brought.
func ours(err error) bool {
	_, ok := errors.AsType[*os.PathError](err)
	return ok || isPanic(err)
}

// quote makes a string of an outsider fit for a message.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// Limits bound what one image may take. The zero value of each means the default.
type Limits struct {
	Layers   int   // in an image (512)
	Members  int   // of an archive (10,000)
	JSON     int64 // bytes of a manifest, an index or a configuration (4 MiB)
	Parsed   int64 // bytes of all manifests, indexes and configurations of an archive (64 MiB)
	Listed   int   // images in an index, and entries in each list of a configuration (4096)
	Entries  int   // files, directories and whiteouts of all layers together (2 million); their paths have up to 64 times as many parts
	Names    int64 // bytes that names, link targets and extended attributes take together, each attribute with xattrCost (512 MiB)
	Plain    int64 // bytes of all layers, inflated; holes of sparse files do not count (16 GiB)
	Logical  int64 // bytes of all files on the disk, holes counted (64 GiB)
	Ratio    int64 // how many times its compressed size a layer may be (200),
	RatioMin int64 // where it is larger than this (64 MiB)
}

func (l Limits) withDefaults() Limits {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	defInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defInt(&l.Layers, 512)
	defInt(&l.Members, 10_000)
	def(&l.JSON, 4<<20)
	def(&l.Parsed, 64<<20)
	defInt(&l.Listed, 4096)
	defInt(&l.Entries, 2_000_000)
	def(&l.Names, 512<<20)
	def(&l.Plain, 16<<30)
	def(&l.Logical, 64<<30)
	def(&l.Ratio, 200)
	def(&l.RatioMin, 64<<20)
	return l
}

// refuseLayer says in which layer something is wrong. What is no refusal yet becomes one: the layer's bytes are at fault.
func refuseLayer(number int, err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		in := *e
		in.Message = fmt.Sprintf("layer %d: %s", number, e.Message)
		return &in
	}
	return invalid("layer %d is damaged: %v", number, err)
}
