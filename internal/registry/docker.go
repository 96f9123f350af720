package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A DockerConfig is where docker and its like keep credentials for registries: a config.json, read each time, so that a
// login beside a running daemon is enough.
type DockerConfig struct {
	Path string // "": none
	// Helpers lets the programs run that the file names (credsStore, credHelpers). They are not, unless asked for.
	Helpers bool
}

// DockerConfigPath is where a person's config.json is: $DOCKER_CONFIG/config.json, else ~/.docker/config.json.
func DockerConfigPath(getenv func(string) string) string {
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".docker", "config.json")
	}
	return ""
}

const (
	maxDockerConfig = 1 << 20
	maxHelperOutput = 64 << 10
	helperTime      = 20 * time.Second
	dockerHub       = "index.docker.io"
)

// A dockerFile is the part of config.json that is read here.
type dockerFile struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredsStore  string                `json:"credsStore"`
	CredHelpers map[string]string     `json:"credHelpers"`
}

type dockerAuth struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Find returns the credentials for a repository of a registry; none where the file has none, or there is no file.
func (d DockerConfig) Find(ctx context.Context, host, repository string) (Auth, error) {
	if d.Path == "" {
		return Auth{}, nil
	}
	file, err := d.read()
	if err != nil {
		return Auth{}, err
	}
	key, helper := file.helper(host)
	if helper != "" && d.Helpers {
		auth, err := askHelper(ctx, helper, key)
		if err != nil || !auth.empty() {
			return auth, err
		}
	}
	return file.auth(host, repository)
}

func (d DockerConfig) read() (dockerFile, error) {
	var file dockerFile
	f, err := os.Open(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return file, fmt.Errorf("read the credentials for registries: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxDockerConfig+1))
	if err != nil {
		return file, fmt.Errorf("read the credentials for registries: %w", err)
	}
	if len(raw) > maxDockerConfig {
		return file, fmt.Errorf("the credentials for registries in %s are not read: the file has more than %d bytes", d.Path, maxDockerConfig)
	}
	if json.Unmarshal(raw, &file) != nil { // whose words might quote what is in it
		return dockerFile{}, fmt.Errorf("the credentials for registries in %s are not readable: the file is not the JSON that docker writes", d.Path)
	}
	return file, nil
}

// auth finds the entry whose key names the host and the longest beginning of the repository.
func (f dockerFile) auth(host, repository string) (Auth, error) {
	best, found := "", dockerAuth{}
	for key, a := range f.Auths {
		h, path := splitKey(key)
		if h != canonical(host) || path != "" && path != repository && !strings.HasPrefix(repository, path+"/") {
			continue
		}
		if best == "" || len(path) > len(best)-1 {
			best, found = "/"+path, a
		}
	}
	auth := Auth{Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken}
	if found.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimRight(found.Auth, "\x00"))
		user, password, ok := strings.Cut(string(raw), ":")
		if err != nil || !ok {
			return Auth{}, fmt.Errorf("the credentials for the registry %s in docker's configuration are not readable: auth is not the base64 of user:password", host)
		}
		auth.Username, auth.Password = user, strings.TrimRight(password, "\x00")
	}
	return auth, nil
}

// splitKey reads a key of auths: a host, a URL as older versions wrote it, or a host with a path as podman writes it.
func splitKey(key string) (host, path string) {
	bare := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ = strings.Cut(bare, "/")
	path = strings.Trim(path, "/")
	if bare != key || path == "v1" || path == "v2" {
		path = "" // of the API, and not of a repository
	}
	return canonical(host), path
}

// canonical makes the names of Docker Hub one.
func canonical(host string) string {
	switch host = strings.ToLower(host); host {
	case "docker.io", "registry-1.docker.io":
		return dockerHub
	}
	return host
}

// helper is the program that keeps the credentials of a host, if one does, and by what name it knows the host.
func (f dockerFile) helper(host string) (key, name string) {
	key = host
	if canonical(host) == dockerHub {
		key = "https://" + dockerHub + "/v1/"
	}
	for h, name := range f.CredHelpers {
		if at, _ := splitKey(h); at == canonical(host) {
			return h, name
		}
	}
	return key, f.CredsStore
}

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// askHelper runs docker-credential-NAME. (docker-credential-helpers: the server's name in, JSON out)
func askHelper(ctx context.Context, name, server string) (Auth, error) {
	if !helperName.MatchString(name) {
		return Auth{}, fmt.Errorf("docker's configuration names the credential helper %q, which is no name of one", name)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	program := "docker-credential-" + name
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = time.Second
	var out limitedBuffer
	cmd.Stdout = &out
	err := cmd.Run()
	if err != nil && strings.Contains(out.buf.String(), "credentials not found") {
		return Auth{}, nil
	}
	if ctx.Err() != nil {
		return Auth{}, fmt.Errorf("the credential helper %s did not answer within %s", program, helperTime)
	}
	if err != nil { // what it printed may hold a secret
		return Auth{}, fmt.Errorf("the credential helper %s: %w", program, err)
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out.buf.Bytes(), &answer) != nil {
		return Auth{}, fmt.Errorf("the credential helper %s did not answer with credentials", program)
	}
	return WithSecret(answer.Username, answer.Secret), nil
}

// WithSecret makes credentials of a user and a secret. The user <token> means that the secret is an identity token, as
// credential helpers have it.
func WithSecret(user, secret string) Auth {
	if user == "<token>" {
		return Auth{IdentityToken: secret}
	}
	return Auth{Username: user, Password: secret}
}

// A limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct{ buf bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := maxHelperOutput - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
