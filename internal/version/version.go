// Package version says which build this is.
package version

import "runtime/debug"

// version is set by the linker (make build).
var version string

// String is the build's version: what git describe said, else the revision that Go recorded, else "dev".
func String() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return s.Value[:12]
			}
		}
	}
	return "dev"
}
