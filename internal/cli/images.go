package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func (a *app) importCommand() *cobra.Command {
	var (
		name          string
		asJSON, quiet bool
	)
	cmd := &cobra.Command{
		Use: "import FILE|-", Short: "Read an image from a file", GroupID: groupImages, Args: cobra.ExactArgs(1),
		Long: "Read an image from what `docker save` writes, or from a tar of an OCI image layout, plain or compressed; - is standard input.\nEnds when the image is ready to run.",
		Example: `  docker save nginx | hale import -
  hale import app.tar --name app:v2`,
		RunE: func(cmd *cobra.Command, args []string) error {
			img, err := a.importImage(cmd.Context(), args[0], name, quiet)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(img)
			}
			for _, name := range imported(img) {
				fmt.Fprintln(a.Stdout, name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the reference to give to the image, instead of the one in the file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the image as JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (a *app) importImage(ctx context.Context, file, name string, quiet bool) (img api.Image, err error) {
	in, total, err := a.open(file)
	if err != nil {
		return img, err
	}
	defer in.Close()
	c, err := a.client()
	if err != nil {
		return img, err
	}
	show := a.progress(ctx, quiet)
	defer show.close()
	label := filepath.Base(file)
	if file == "-" {
		label = "standard input"
	}
	show.step("reading "+label, total)
	img, err = c.ImportImage(ctx, in, hale.Import{Name: name, Size: total, Progress: show.sent})
	if err != nil {
		return img, err
	}
	names := imported(img)
	if img, err = a.untilReady(ctx, c, img, show); err != nil {
		show.close()
		a.leaveImage(ctx, img.Name)
		return img, err
	}
	img.Imported = names
	for _, name := range names {
		if name == img.Name {
			continue
		}
		other, err := c.Image(ctx, name, 0)
		if err == nil {
			_, err = a.untilReady(ctx, c, other, show)
		}
		if err != nil {
			return img, err
		}
	}
	return img, nil
}

// imported are the names of the images that came in one file; an older server tells the first only.
func imported(img api.Image) []string {
	if len(img.Imported) == 0 {
		return []string{img.Name}
	}
	return img.Imported
}

// open opens what is to be imported; the size is 0 where it is not known.
func (a *app) open(file string) (in io.ReadCloser, size int64, err error) {
	if file == "-" {
		if _, isTerminal := terminal(a.Stdin); isTerminal {
			return nil, 0, usagef("standard input is a terminal; pipe an image in, as in `docker save nginx | hale import -`")
		}
		return io.NopCloser(a.Stdin), 0, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, fileError(err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		f.Close()
		return nil, 0, err
	case info.IsDir():
		f.Close()
		return nil, 0, usagef("%s is a directory; make a tar of it, as in `tar -C %s -c . | hale import -`", file, file)
	case info.Mode().IsRegular():
		size = info.Size()
	}
	return f, size, nil
}

func fileError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return exitStatus{exitNotFound, err}
	}
	return err
}

// imagePace is how often an image on its way is asked after.
const imagePace = 250 * time.Millisecond

// watchImage shows how an image comes until it is ready.
func (a *app) watchImage(ctx context.Context, c *hale.Client, name string, quiet bool) error {
	img, err := c.Image(ctx, name, 0)
	if err != nil {
		return err
	}
	show := a.progress(ctx, quiet)
	defer show.close()
	_, err = a.untilReady(ctx, c, img, show)
	return err
}

// untilReady follows an image until it is ready, or says why it failed.
func (a *app) untilReady(ctx context.Context, c *hale.Client, img api.Image, show *progress) (api.Image, error) {
	for {
		switch img.Status {
		case api.ImageStatusReady:
			show.done("ready: " + img.Name)
			return img, nil
		case api.ImageStatusFailed:
			return img, fmt.Errorf("image %s failed: %s", img.Name, or(img.Error, "no reason was given"))
		}
		show.image(img)
		select {
		case <-ctx.Done():
			return img, ctx.Err()
		case <-time.After(imagePace):
		}
		var next api.Image
		var err error
		if next, c, err = a.imageWhenBack(ctx, c, img.Name, show); err != nil {
			return img, err
		}
		img = next
	}
}

func (a *app) imagesCommand() *cobra.Command {
	var (
		tags          []string
		asJSON, quiet bool
	)
	cmd := &cobra.Command{
		Use: "images", Short: "List the images, and what they take on the disk", GroupID: groupImages,
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := keyValues("--tag", tags)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			list, err := c.Images(cmd.Context(), want)
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return a.printJSON(list)
			case quiet:
				for _, img := range list {
					fmt.Fprintln(a.Stdout, img.Name)
				}
				return nil
			}
			t := imageTable(list, time.Now())
			t.fit(a.paper().width, 1)
			if err := t.write(a.Stdout, a.coloured()); err != nil {
				return err
			}
			a.diskUse(cmd.Context(), c)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "only those with this tag, `KEY=VALUE`; several must all match")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the names only")
	return cmd
}

func imageTable(list []api.Image, now time.Time) table {
	t := table{header: []string{"NAME", "STATUS", "SIZE", "DIGEST", "AGE"}}
	for _, img := range list {
		bytes := "-"
		if n := or(img.SizeBytes, 0); n > 0 {
			bytes = size(n)
		}
		digest := cut(strings.TrimPrefix(img.Digest, "sha256:"), 13)
		t.add(plain(shortImage(img.Name)), imageStatus(img), plain(bytes), plain(strings.TrimSuffix(digest, "…")), plain(short(now.Sub(img.CreatedAt))))
	}
	return t
}

// diskUse says, for who looks, what all images take: those that share a disk count once, and the layers that are kept for
// pulls to come count too.
func (a *app) diskUse(ctx context.Context, c *hale.Client) {
	if _, ok := terminal(a.Stderr); !ok {
		return
	}
	if r, err := c.Resources(ctx); err == nil && r.DiskBreakdown != nil {
		a.hint(fmt.Sprintf("disks %s, layers kept for pulls to come %s, free %s",
			size(r.DiskBreakdown.ImagesBytes), size(r.DiskBreakdown.OCICacheBytes), size(r.Disk.Available)))
	}
}

func imageStatus(img api.Image) cell {
	c := plain(string(img.Status))
	switch img.Status {
	case api.ImageStatusFailed:
		c = cell{c.text + ": " + cut(oneLine(or(img.Error, "")), 60), red}
	case api.ImageStatusReady:
	default:
		c.colour = yellow
		if p := img.Progress; p != nil && or(p.TotalBytes, 0) > 0 {
			c.text += fmt.Sprintf(" %d%%", p.DoneBytes*100 / *p.TotalBytes)
		}
		if n := or(img.QueuePosition, 0); n > 0 {
			c.text += fmt.Sprintf(" (%d in line)", n)
		}
	}
	return c
}

func (a *app) rmiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rmi NAME...", Short: "Delete images", GroupID: groupImages, Args: cobra.MinimumNArgs(1),
		Long: "Delete images. One that an instance uses is kept, and the command ends with 4.",
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.each(cmd.Context(), names, func(c *hale.Client, name string) error { return c.DeleteImage(cmd.Context(), name) }, nil)
		},
	}
}
