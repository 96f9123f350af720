// Package hale calls the API of a hale daemon: instances and what goes on inside them, health, images, events.
//
// A Client is one address and one token; it is immutable, its methods may be called from any goroutine, and each is one request,
// never repeated by the client. Contexts end requests and streams at any moment. Streams (Logs, Events) are iterators that
// hold their connection until the loop ends. An Exec is a connection of its own, for one reader and any number of
// writers.
//
// What a server refuses is an *Error, which unwraps to its api.Kind, so errors.Is(err, api.NotFound) reads here as it does in the
// daemon. A server that does not answer is an *UnreachableError. Anything else is the caller's own: a context that ended, a
// reader or writer that failed.
//
// The requests are generated from api/openapi.yaml. The package does not know where a daemon or its token is found, and
// prints nothing.
package hale
