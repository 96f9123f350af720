package api

import _ "embed"

// Spec is openapi.yaml as it was built in.
//
//go:embed openapi.yaml
var Spec []byte
