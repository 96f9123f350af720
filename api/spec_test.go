package api

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A description is what these tests need of openapi.yaml.
type description struct {
	Paths      map[string]map[string]yaml.Node
	Components struct {
		Schemas   map[string]yaml.Node
		Responses map[string]struct {
			Content map[string]struct{ Schema map[string]string }
		}
	}
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Summary     string
	Description string
	Tags        []string
	Security    *[]map[string][]string
	Responses   map[string]yaml.Node
}

func read(t *testing.T) description {
	t.Helper()
	var d description
	if err := yaml.Unmarshal(Spec, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOperations: each operation says what it does and how it is refused. What answers without a token is named here.
func TestOperations(t *testing.T) {
	open := map[string]bool{"getHealth": true, "getOpenAPIYAML": true, "getOpenAPIJSON": true, "getDocs": true}
	d := read(t)
	const errorRef, responseRef = "#/components/schemas/Error", "#/components/responses/"
	for path, item := range d.Paths {
		for method, node := range item {
			if method == "parameters" {
				continue
			}
			var o operation
			if err := node.Decode(&o); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			if o.OperationID == "" || o.Summary == "" || o.Description == "" || len(o.Tags) == 0 {
				t.Errorf("%s %s does not say what it is: %+v", method, path, o)
			}
			_, refuses := o.Responses["401"]
			if wantsToken := o.Security == nil; wantsToken == open[o.OperationID] || refuses != wantsToken {
				t.Errorf("%s wants a token: %v, and refuses the lack of one: %v", o.OperationID, wantsToken, refuses)
			}
			if _, ok := o.Responses["500"]; !ok {
				t.Errorf("%s never fails", o.OperationID)
			}
			for status, node := range o.Responses {
				if status[0] != '4' && status[0] != '5' {
					continue
				}
				var r map[string]string
				name := ""
				if node.Decode(&r) == nil {
					name = strings.TrimPrefix(r["$ref"], responseRef)
				}
				if got := d.Components.Responses[name].Content["application/json"].Schema["$ref"]; got != errorRef {
					t.Errorf("%s answers %s with %q, want an Error", o.OperationID, status, got)
				}
			}
		}
	}
}

// TestComponents: what generators name their types by is a component, not an inline schema.
func TestComponents(t *testing.T) {
	schemas := read(t).Components.Schemas
	for _, name := range []string{
		"Instance", "InstanceHealth", "InstanceHealthStatus", "HealthCheck", "HealthCheckHTTP", "HealthCheckTCP", "HealthCheckExec", "HealthCheckGRPC",
		"HealthResult", "HealthTransition", "Image", "Event", "Error", "ErrorDetail", "PortMapping", "RestartPolicy", "AutoStandbyPolicy",
		"PathInfo", "InstanceStats", "WaitForStateResponse", "Resources", "Capabilities", "Health",
	} {
		if _, ok := schemas[name]; !ok {
			t.Errorf("there is no component %s among %q", name, slices.Sorted(maps.Keys(schemas)))
		}
	}
}
