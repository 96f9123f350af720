package token

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	s, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	good, err := s.Mint(now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(m jwt.SigningMethod, key any, c jwt.RegisteredClaims) string {
		token, err := jwt.NewWithClaims(m, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	claims := jwt.RegisteredClaims{Issuer: issuer, ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour))}
	noExpiry, otherIssuer := claims, claims
	noExpiry.ExpiresAt, otherIssuer.Issuer = nil, "somebody"
	for _, c := range []struct {
		name, token string
		at          time.Time
		ok          bool
	}{
		{"good", good, now, true},
		{"expired", good, now.Add(2 * time.Hour), false},
		{"empty", "", now, false},
		{"garbage", "a.b.c", now, false},
		{"cut", good[:len(good)-2], now, false},
		{"alg none", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims), now, false},
		{"HS512", sign(jwt.SigningMethodHS512, s.key, claims), now, false},
		{"other secret", sign(jwt.SigningMethodHS256, []byte("other"), claims), now, false},
		{"no expiry", sign(jwt.SigningMethodHS256, s.key, noExpiry), now, false},
		{"other issuer", sign(jwt.SigningMethodHS256, s.key, otherIssuer), now, false},
	} {
		if err := s.Verify(c.token, c.at); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestRotationEndsAllTokens(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	old, err := s.Mint(now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(old, now); err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(dir); err != nil {
		t.Fatal(err)
	}
	if f.Verify(old, now) == nil {
		t.Error("a token outlived its secret")
	}
}

// TestOneSecretForAll: tokens that are made at the same time in a new directory are all good.
func TestOneSecretForAll(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		var made [8]string
		var all sync.WaitGroup
		for i := range made {
			all.Go(func() {
				s, err := LoadOrCreate(dir)
				if err != nil {
					t.Error(err)
					return
				}
				made[i], _ = s.Mint(time.Now(), time.Hour)
			})
		}
		all.Wait()
		s, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range made {
			if err := s.Verify(token, time.Now()); err != nil {
				t.Error(err)
			}
		}
		if names, _ := os.ReadDir(dir); len(names) != 1 {
			t.Errorf("left behind: %v", names)
		}
	}
}

func TestTheSecretIsNobodyElses(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadOrCreate(dir); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir); err == nil {
		t.Error("a damaged secret was accepted or replaced")
	}
}
