// Package api is the contract: openapi.yaml, which is the source of truth, the wire types generated from it, and Kind, the classes of
// error that both sides of the socket share. It holds values only: they may be copied, and nothing here is shared
// between goroutines. It knows neither server nor client.
package api

//go:generate go tool -modfile=../tools/go.mod oapi-codegen -config codegen/types.yaml openapi.yaml
//go:generate go tool -modfile=../tools/go.mod oapi-codegen -config codegen/server.yaml openapi.yaml
//go:generate go tool -modfile=../tools/go.mod oapi-codegen -config codegen/client.yaml openapi.yaml
