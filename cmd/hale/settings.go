package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/halevm/hale/internal/daemon"
	"github.com/halevm/hale/internal/token"
)

// settings are what a person may say about a daemon. A flag, a variable (HALE_DATA_DIR for --data-dir) and a line of
// the configuration file (data-dir: …) say the same thing, and the first of them that does is obeyed.
type settings struct {
	DataDir  string `yaml:"data-dir"`
	Listen   string `yaml:"listen"`
	Accel    string `yaml:"accel"`
	Kernel   string `yaml:"kernel"`
	LogLevel string `yaml:"log-level"`
	Driver   string `yaml:"driver"`
	Sandbox  string `yaml:"sandbox"`
	UIDs     string `yaml:"uids"`
	AllowNet string `yaml:"allow-net"` // ranges, separated by commas

	BootRetries string `yaml:"boot-retries"`

	RegistryConfig    string `yaml:"registry-config"`
	CredentialHelpers string `yaml:"credential-helpers"`

	configFile string
}

// defaultListen is loopback: nobody else's machine reaches the daemon unless a person says so.
const defaultListen = "127.0.0.1:4973"

// defaultDataDir is /var/lib/hale for root, and the user's own data directory for everyone else.
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/hale"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "hale")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "hale-data"
	}
	return filepath.Join(home, ".local", "share", "hale")
}

func defaultConfigFile() string {
	if os.Geteuid() == 0 {
		return "/etc/hale/hale.yaml"
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "hale", "hale.yaml")
}

// addDataDir adds the flag that every command of this host has.
func (s *settings) addDataDir(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.DataDir, "data-dir", "", "directory of everything that hale keeps (default "+defaultDataDir()+")")
	cmd.Flags().StringVar(&s.configFile, "config", "", "configuration file (default "+defaultConfigFile()+", if it is there)")
}

// resolve fills in what no flag said: from the environment, then from the configuration file, then the defaults.
func (s *settings) resolve() error {
	file, err := s.readFile()
	if err != nil {
		return err
	}
	mine, theirs := reflect.ValueOf(s).Elem(), reflect.ValueOf(&file).Elem()
	for i := range mine.NumField() {
		name := mine.Type().Field(i).Tag.Get("yaml")
		if name == "" || mine.Field(i).String() != "" {
			continue
		}
		if v := os.Getenv("HALE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))); v != "" {
			mine.Field(i).SetString(v)
		} else {
			mine.Field(i).Set(theirs.Field(i))
		}
	}
	if s.DataDir == "" {
		s.DataDir = defaultDataDir()
	}
	if s.Listen == "" {
		s.Listen = defaultListen
	}
	if s.DataDir, err = filepath.Abs(s.DataDir); err != nil {
		return err
	}
	return nil
}

// readFile reads the configuration file. One that was named must be there; the default one need not.
func (s *settings) readFile() (settings, error) {
	var file settings
	path := s.configFile
	if path == "" {
		path = os.Getenv("HALE_CONFIG")
	}
	named := path != ""
	if !named {
		path = defaultConfigFile()
	}
	f, err := os.Open(path)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return file, fmt.Errorf("the configuration file: %w", err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) { // an empty file says nothing
		return file, fmt.Errorf("the configuration file %s: %w", path, err)
	}
	return file, nil
}

// cliTokenTTL is how long the token is good for that one command uses: longer than any wait or upload.
const cliTokenTTL = 24 * time.Hour

// localDaemon finds the daemon of this host by what it wrote down, and makes a token for it.
func (s *settings) localDaemon() (url, bearer string, err error) {
	if err := s.resolve(); err != nil {
		return "", "", err
	}
	where, err := daemon.Find(s.DataDir)
	switch {
	case errors.Is(err, daemon.ErrNone):
		return "", "", fmt.Errorf("%w with the data directory %s: start one with `hale serve`, or say where one is with HALE_DATA_DIR, or HALE_URL and HALE_TOKEN", err, s.DataDir)
	case errors.Is(err, fs.ErrPermission):
		return "", "", fmt.Errorf("find the daemon of this host: %w (run this as the daemon's user, or set HALE_URL and HALE_TOKEN)", err)
	case err != nil:
		return "", "", fmt.Errorf("find the daemon of this host: %w", err)
	}
	bearer = os.Getenv("HALE_TOKEN")
	if bearer == "" {
		secret, err := token.Load(s.DataDir)
		if err != nil {
			return "", "", fmt.Errorf("make a token: %w", err)
		}
		if bearer, err = secret.Mint(time.Now(), cliTokenTTL); err != nil {
			return "", "", err
		}
	}
	return where.URL, bearer, nil
}
