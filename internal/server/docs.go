package server

import (
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/halevm/hale/api"
)

// description is what the pages need of openapi.yaml.
type description struct {
	Info struct {
		Title       string `yaml:"title"`
		Summary     string `yaml:"summary"`
		Description string `yaml:"description"`
	} `yaml:"info"`
	Paths map[string]map[string]yaml.Node `yaml:"paths"`
}

type operation struct {
	Method, Path         string
	Summary, Description string
}

// The description never changes while the program runs, so each form of it is made once.
var (
	specJSON = sync.OnceValues(func() ([]byte, error) {
		var v any
		if err := yaml.Unmarshal(api.Spec, &v); err != nil {
			return nil, fmt.Errorf("openapi.yaml: %w", err)
		}
		return json.Marshal(v)
	})
	specPage = sync.OnceValues(makePage)
)

// GetOpenAPIYAML answers with the description of the API.
func (s *Server) GetOpenAPIYAML(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(api.Spec)
}

// GetOpenAPIJSON answers with it as JSON.
func (s *Server) GetOpenAPIJSON(w http.ResponseWriter, r *http.Request) {
	b, err := specJSON()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
}

// GetDocs answers with a page for people.
func (s *Server) GetDocs(w http.ResponseWriter, r *http.Request) {
	page, err := specPage()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Write([]byte(page))
}

var pageTemplate = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Info.Title}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
code { font: 14px ui-monospace, monospace } h2 { font-size: 1rem; margin: 1.6rem 0 0 } p { margin: .3rem 0; white-space: pre-line }
</style>
<h1>{{.Info.Title}}</h1>
<p>{{.Info.Description}}</p>
<p>Whole: <a href="/openapi.yaml">openapi.yaml</a>, <a href="/openapi.json">openapi.json</a></p>
{{range .Operations}}<h2><code>{{.Method}} {{.Path}}</code> {{.Summary}}</h2>
<p>{{.Description}}</p>
{{end}}</html>
`))

func makePage() (string, error) {
	var d description
	if err := yaml.Unmarshal(api.Spec, &d); err != nil {
		return "", fmt.Errorf("openapi.yaml: %w", err)
	}
	var page strings.Builder
	err := pageTemplate.Execute(&page, struct {
		description
		Operations []operation
	}{d, d.operations()})
	return page.String(), err
}

// operations are the routes in the order of their paths.
func (d description) operations() []operation {
	var list []operation
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			node, ok := d.Paths[path][method]
			if !ok {
				continue
			}
			op := operation{Method: strings.ToUpper(method), Path: path}
			node.Decode(&op) // what does not decode is not shown
			list = append(list, op)
		}
	}
	return list
}
