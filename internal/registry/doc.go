// Package registry reads from a registry of images, by the OCI distribution specification: manifests, and blobs from any
// byte on. It logs in as the registry asks for it (Basic, or a bearer token), and knows the credentials that docker keeps.
//
// A registry is hostile until it has proved otherwise, and so is whoever it sends us to. What it says of itself is bounded
// and quoted; what it delivers is the caller's to verify. Plain HTTP is spoken to loopback and to nobody else. Of redirects
// a few are followed, and only the registry itself ever sees what was meant for it: credentials and tokens never go to
// another host or port, but to the token service that it names. Whoever is not on this host is not followed to this host.
//
// (The client of go-containerregistry does not ask for parts of blobs, does not tell when to come again, and keeps the
// authorization where a redirect changes the port or leads below the host's name. Its names and types are used here.)
//
// A Client may be used from any goroutine, and so may a Repository. Every error of theirs is an *api.Error, or the cause
// for which the context ended; Temporary tells whether another try may end better.
package registry
