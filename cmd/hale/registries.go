package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry"
)

// registries is where the daemon finds credentials for registries.
func (s *settings) registries() (registry.DockerConfig, error) {
	c := registry.DockerConfig{Path: s.RegistryConfig}
	switch s.RegistryConfig {
	case "":
		c.Path = registry.DockerConfigPath(os.Getenv)
	case "none":
		c.Path = ""
	default:
		if _, err := os.Stat(s.RegistryConfig); err != nil {
			return c, fmt.Errorf("the credentials for registries: %w", err)
		}
	}
	if s.CredentialHelpers != "" {
		var err error
		if c.Helpers, err = strconv.ParseBool(s.CredentialHelpers); err != nil {
			return c, fmt.Errorf("credential-helpers %q: true or false: %w", s.CredentialHelpers, api.Invalid)
		}
	}
	return c, nil
}

// registryCredentials are what the person at this command line has for an image's registry, for one pull; nil is none.
func registryCredentials(ctx context.Context, image string, helpers bool) (*api.RegistryCredentials, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil, nil // the daemon says what is wrong with it
	}
	config := registry.DockerConfig{Path: registry.DockerConfigPath(os.Getenv), Helpers: helpers}
	auth, err := config.Find(ctx, ref.Context().RegistryStr(), ref.Context().RepositoryStr())
	if err != nil || auth == (registry.Auth{}) {
		return nil, err
	}
	c := &api.RegistryCredentials{Username: auth.Username, Password: auth.Password, RegistryToken: auth.RegistryToken}
	if auth.IdentityToken != "" {
		c.Username, c.Password = "<token>", auth.IdentityToken
	}
	return c, nil
}
