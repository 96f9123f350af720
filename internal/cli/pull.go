package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// A pullRequest is what a command wants pulled.
type pullRequest struct {
	name, platform string
	tags           map[string]string
	helpers, quiet bool
}

func (a *app) pullCommand() *cobra.Command {
	var (
		r      pullRequest
		tags   []string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use: "pull IMAGE", Short: "Get an image from its registry", GroupID: groupImages, Args: cobra.ExactArgs(1),
		Long: `Get an image from its registry, by tag or by digest, and make its disk. Ends when the image is ready to run; Ctrl-C ends the
command, and not the pull, which hale rmi ends.

Credentials are those that docker login has written down ($DOCKER_CONFIG/config.json, else ~/.docker/config.json), for this
pull only. They are sent to a daemon on this host, or over HTTPS.`,
		Example: `  hale pull nginx
  hale pull 127.0.0.1:5000/app@sha256:…`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r.name = args[0]
			if r.tags, err = keyValues("--tag", tags); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			img, err := a.pull(cmd.Context(), c, r)
			if err != nil {
				a.leaveImage(cmd.Context(), r.name)
				return err
			}
			if asJSON {
				return a.printJSON(img)
			}
			fmt.Fprintln(a.Stdout, img.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&r.platform, "platform", "", "the platform (linux/amd64, which is the one there is)")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "a tag of your own on the image, `KEY=VALUE`")
	cmd.Flags().BoolVar(&r.helpers, "credential-helpers", false, "run the programs that docker's configuration names for credentials")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the image as JSON")
	cmd.Flags().BoolVarP(&r.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

// pull pulls an image and shows how it comes, until it is ready.
func (a *app) pull(ctx context.Context, c *hale.Client, r pullRequest) (api.Image, error) {
	req := api.CreateImageRequest{Name: r.name, Platform: api.Platform(r.platform), Tags: r.tags}
	var err error
	if a.RegistryCredentials != nil && a.private() {
		if req.Credentials, err = a.RegistryCredentials(ctx, r.name, r.helpers); err != nil {
			return api.Image{}, err
		}
	}
	show := a.progress(ctx, r.quiet)
	defer show.close()
	img, err := c.PullImage(ctx, req)
	for err == nil && img.Digest == "" { // the registry is slow to say what the name stands for
		show.image(img)
		img, err = c.PullImage(ctx, req)
	}
	if err != nil {
		return img, err
	}
	return a.untilPulled(ctx, c, img, show)
}

// untilPulled follows a pull by what it brings: its name may stand for an older image until it has ended.
func (a *app) untilPulled(ctx context.Context, c *hale.Client, pulled api.Image, show *progress) (api.Image, error) {
	repository, _, _ := strings.Cut(pulled.Name, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	for img := pulled; ; {
		switch {
		case img.Name == pulled.Name && img.Digest == pulled.Digest && img.Status == api.ImageStatusReady:
			show.done("ready: " + img.Name)
			return img, nil
		case img.Digest == pulled.Digest && img.Status == api.ImageStatusFailed:
			return img, fmt.Errorf("image %s failed: %s", img.Name, or(img.Error, "no reason was given"))
		case img.Status != api.ImageStatusReady:
			show.image(img)
		}
		select {
		case <-ctx.Done():
			return img, ctx.Err()
		case <-time.After(imagePace):
		}
		var err error
		if img, c, err = a.imageWhenBack(ctx, c, pulled.Name, show); errors.Is(err, api.NotFound) {
			return img, fmt.Errorf("the image %s was deleted while it was pulled", pulled.Name)
		} else if err != nil {
			return img, err
		}
		if img.Digest != pulled.Digest {
			next, err := c.Image(ctx, repository+"@"+pulled.Digest, 0)
			if err == nil {
				img = next
			} else if !errors.Is(err, api.NotFound) {
				return img, err
			} else if img, err = c.Image(ctx, pulled.Name, 0); err == nil && img.Digest != pulled.Digest {
				return img, fmt.Errorf("the pull of %s did not last: somebody deleted it, or pulled another image of that name", pulled.Name)
			}
		}
	}
}

// imageWhenBack asks after an image on its way. A daemon that goes away meanwhile is waited for, for the next one goes on with it; the client is of that one.
func (a *app) imageWhenBack(ctx context.Context, c *hale.Client, name string, show *progress) (api.Image, *hale.Client, error) {
	var away absence
	for {
		img, err := c.Image(ctx, name, 0)
		if err == nil || ctx.Err() != nil || codeOf(err) != exitUnreachable {
			return img, c, err
		}
		if err := away.wait(ctx, show.say, reconnectPause); err != nil {
			return img, c, err
		}
		if next, err := a.client(); err == nil {
			c = next
		}
	}
}

// leaveImage says, after Ctrl-C, that an image is on its way without this command.
func (a *app) leaveImage(ctx context.Context, name string) {
	c, err := a.client() // the daemon may have come back at another address
	if ctx.Err() == nil || err != nil {
		return
	}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	img, err := c.Image(look, name, 0)
	if err == nil && img.Status != api.ImageStatusReady && img.Status != api.ImageStatusFailed {
		fmt.Fprintf(a.Stderr, "hale: %[1]s is %[2]s, and goes on without this command; `hale rmi %[1]s` ends it\n", oneLine(img.Name), img.Status)
	}
}

// private reports whether nobody else reads what is said to the daemon.
func (a *app) private() bool {
	u, err := url.Parse(a.Getenv("HALE_URL"))
	if err != nil {
		return false
	}
	if u.Host == "" || u.Scheme == "https" || u.Hostname() == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback()
}

func (a *app) tagCommand() *cobra.Command {
	return &cobra.Command{
		Use: "tag IMAGE NAME", Short: "Give an image a further name", GroupID: groupImages, Args: cobra.ExactArgs(2),
		Long: "Make NAME, a reference with a tag, stand for an image that is here, whatever it stood for before.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			img, err := c.TagImage(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			fmt.Fprintln(a.Stdout, img.Name)
			return nil
		},
	}
}
