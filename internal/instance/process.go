package instance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/machine"
)

// defaultPath is what a program finds its commands in when neither the image nor the request says.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process resolves what is to be run, as Docker does: a request's entrypoint replaces the image's and drops the image's cmd, a
// request's cmd replaces the image's; the request's environment is laid over the image's.
//
// A process that is refused for its size is returned all the same: a record may hold one.
func process(spec Spec, img Image) (machine.Process, error) {
	entrypoint, cmd := img.Entrypoint, img.Cmd
	if spec.Entrypoint != nil {
		entrypoint, cmd = spec.Entrypoint, nil
	}
	if spec.Cmd != nil {
		cmd = spec.Cmd
	}
	argv := slices.Concat(entrypoint, cmd)
	if len(argv) == 0 || argv[0] == "" {
		return machine.Process{}, invalid("cmd", "there is nothing to run: the image names no program, so cmd or entrypoint must")
	}
	p := machine.Process{
		Argv:       argv,
		Env:        environment(img.Env, spec.Env),
		Dir:        img.WorkingDir,
		User:       img.User,
		StopSignal: img.StopSignal,
	}
	return p, checkProcess(p, spec, img)
}

// checkProcess refuses, by its larger part, what no guest can be told.
func checkProcess(p machine.Process, spec Spec, img Image) error {
	size := jsonSize(p)
	if size <= machine.MaxProcess {
		return nil
	}
	args, env := jsonSize(spec.Entrypoint)+jsonSize(spec.Cmd), jsonSize(spec.Env)
	field := "image"
	switch {
	case size-args-env > machine.MaxProcess:
	case env >= args:
		field = "env"
	case spec.Cmd != nil:
		field = "cmd"
	default:
		field = "entrypoint"
	}
	return invalid(field, fmt.Sprintf("the program's arguments and environment, with the image's, take %d bytes as JSON: a guest can be told at most %d", size, machine.MaxProcess))
}

func jsonSize(v any) int {
	b, _ := json.Marshal(v) // strings always can be
	return len(b)
}

// environment lays over upon base. Names keep the image's order; new ones follow, sorted.
func environment(base []string, over map[string]string) []string {
	env := make([]string, 0, len(base)+len(over)+1)
	seen := map[string]bool{}
	for _, kv := range base {
		name, _, _ := strings.Cut(kv, "=")
		if v, ok := over[name]; ok {
			kv = name + "=" + v
		}
		if !seen[name] {
			env = append(env, kv)
		}
		seen[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(over)) {
		if !seen[name] {
			env = append(env, name+"="+over[name])
			seen[name] = true
		}
	}
	if !seen["PATH"] {
		env = append(env, defaultPath)
	}
	return env
}

// invalid is a request that is wrong in one field.
func invalid(field, message string) *api.Error {
	return &api.Error{Kind: api.Invalid, Code: "invalid_request", Message: field + ": " + message,
		Details: []api.Detail{{Code: "invalid_request", Message: message, Field: field}}, NoRetry: true}
}
