// Package token makes and checks the bearer tokens of a daemon: JWTs signed with HS256 and a secret of the daemon's own,
// and nothing else. A new secret ends every token of the one before. A Secret is a value and may be used from any goroutine.
package token

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/store"
)

// FileName is the secret's file in a data directory.
const FileName = "token"

// DefaultTTL is how long a token is good for unless a person says otherwise.
const DefaultTTL = 30 * 24 * time.Hour

const (
	secretBytes = 32
	issuer      = "hale"
	leeway      = 5 * time.Second
)

// A Secret signs and checks tokens.
type Secret struct{ key []byte }

// Load reads the secret of the data directory dir.
func Load(dir string) (Secret, error) {
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		return Secret{}, err
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != secretBytes {
		return Secret{}, fmt.Errorf("%s is not a secret of hale's: remove it, and a new one is made", filepath.Join(dir, FileName))
	}
	return Secret{key}, nil
}

// LoadOrCreate reads the secret of dir, and makes one (0600) where there is none. Of several that make one at the same time one
// wins, and all return that.
func LoadOrCreate(dir string) (Secret, error) {
	s, err := Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if s, err = write(dir, store.CreateFile); errors.Is(err, fs.ErrExist) {
			return Load(dir)
		}
	}
	return s, err
}

// Rotate gives dir a new secret, which ends every token there was.
func Rotate(dir string) (Secret, error) { return write(dir, store.WriteFile) }

func write(dir string, write func(path string, data []byte, mode os.FileMode) error) (Secret, error) {
	key := make([]byte, secretBytes)
	rand.Read(key)
	text := base64.RawURLEncoding.EncodeToString(key) + "\n"
	if err := write(filepath.Join(dir, FileName), []byte(text), 0o600); err != nil {
		return Secret{}, fmt.Errorf("write the signing secret: %w", err)
	}
	return Secret{key}, nil
}

// Mint makes a token that is good for ttl from now.
func (s Secret) Mint(now time.Time, ttl time.Duration) (string, error) {
	if ttl <= 0 {
		return "", fmt.Errorf("a token that is good for %v is none", ttl)
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Issuer:    issuer,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}).SignedString(s.key)
}

// Verify returns nil for a token that this secret signed with HS256 and that has an expiry that has not passed. Its errors are of
// kind api.Unauthorized, in words for the caller.
func (s Secret) Verify(token string, now time.Time) error {
	_, err := jwt.ParseWithClaims(token, &jwt.RegisteredClaims{},
		func(*jwt.Token) (any, error) { return s.key, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(), jwt.WithIssuer(issuer), jwt.WithLeeway(leeway),
		jwt.WithTimeFunc(func() time.Time { return now }))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenExpired):
		return &api.Error{Kind: api.Unauthorized, Message: "the token has expired: make another with `hale token`"}
	default:
		return &api.Error{Kind: api.Unauthorized, Message: "the token is not valid here: make one with `hale token`"}
	}
}

// A File is the secret of a data directory as it is now: a rotation takes effect at once.
type File struct {
	dir string
}

// Open returns the File of dir, and makes its secret where there is none.
func Open(dir string) (*File, error) {
	if _, err := LoadOrCreate(dir); err != nil {
		return nil, err
	}
	return &File{dir: dir}, nil
}

// Verify checks a token against the secret as it is now. An error that is not of kind api.Unauthorized is the host's.
func (f *File) Verify(token string, now time.Time) error {
	s, err := Load(f.dir)
	if err != nil {
		return fmt.Errorf("read the signing secret: %w", err)
	}
	return s.Verify(token, now)
}
