package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// A filter that cannot be read is refused; without it everything would be listed.
func TestFiltersThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	for _, query := range []string{
		"tags[a]=50%", "tags[a]=b;c", "tags=a", "tags=a=b", "tags.a=b", "tags[a", "tags[]=b", "tags[a]=1&tags[a]=2",
		"state=%zz", "health=healthy;", "state=Running&state=Stopped",
	} {
		for _, path := range []string{"/instances", "/images"} {
			if path == "/images" && !strings.HasPrefix(query, "tags") {
				continue
			}
			resp, body := w.call("GET", path+"?"+query, w.bearer, nil)
			var told api.ErrorBody
			if err := json.Unmarshal(body, &told); err != nil || resp.StatusCode != http.StatusBadRequest || told.Code != "invalid_request" {
				t.Errorf("%s?%s: %d %.100s", path, query, resp.StatusCode, body)
			}
		}
	}
	if resp, body := w.call("DELETE", "/instances/web?graceful_shutdown=%zz", w.bearer, nil); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a deletion that does not say how: %d %s", resp.StatusCode, body)
	}
}

// Any tag that can be given can be asked for.
func TestTagsOfAllKinds(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	c := w.client()
	for _, key := range []string{"a", "a[b]", "a]", "[", "a][b", "a.b", "ä&=%; +", "\u2028"} {
		tags := map[string]string{key: "x]&=%;+ ", "other": ""}
		if _, err := c.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{Tags: tags}); err != nil {
			t.Errorf("%q: %v", key, err)
			continue
		}
		if list, err := c.Instances(t.Context(), hale.InstanceFilter{Tags: tags}); err != nil || len(list) != 1 {
			t.Errorf("%q: %d instances, %v", key, len(list), err)
		}
		if list, err := c.Instances(t.Context(), hale.InstanceFilter{Tags: map[string]string{key: "x"}}); err != nil || len(list) != 0 {
			t.Errorf("%q with another value: %d instances, %v", key, len(list), err)
		}
	}
	for range 20 { // in any order of the two
		resp, body := w.call("GET", "/instances?tags[a]=1&tags[a][b]=2", w.bearer, nil)
		if resp.StatusCode != http.StatusOK || string(body) != "[]\n" {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
}
