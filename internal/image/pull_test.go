package image

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestPullSmoke(t *testing.T) {
	srv := httptest.NewServer(http.Handler(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	img := must(random.Image(1024, 3))
	var _ v1.Image = img
	if err := remote.Write(must(name.ParseReference(host+"/app:v1")), img); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, t.TempDir(), Options{})
	got, err := s.Pull(t.Context(), host+"/app:v1", PullOptions{})
	t.Logf("%+v %v", got, err)
}
