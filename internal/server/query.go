package server

import (
	"fmt"
	"net/url"
	"strings"
)

// queryObject reads name[KEY]=VALUE of a query; a key may hold brackets too. What only looks like it is refused: a filter that is left
// out would list everything.
func queryObject(query url.Values, name string) (map[string]string, error) {
	var object map[string]string
	for param, values := range query {
		rest, ours := strings.CutPrefix(param, name)
		if !ours || rest != "" && rest[0] != '[' && rest[0] != '.' {
			continue
		}
		key, closed := strings.CutSuffix(strings.TrimPrefix(rest, "["), "]")
		if !closed || key == "" || rest[0] != '[' {
			return nil, fmt.Errorf("%s[KEY]=VALUE", name)
		}
		if len(values) > 1 {
			return nil, fmt.Errorf("%s[KEY]=VALUE, each key once", name)
		}
		if object == nil {
			object = make(map[string]string)
		}
		object[key] = values[0]
	}
	return object, nil
}
