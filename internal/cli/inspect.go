package cli

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
)

func (a *app) inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect NAME...", Short: "Print everything about instances, as JSON", GroupID: groupInstances, Args: cobra.MinimumNArgs(1),
		Long: "Print everything about an instance, as one JSON object; about several, as an array of those that there are.",
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(names) == 1 {
				inst, err := c.Instance(cmd.Context(), names[0])
				if err != nil {
					return err
				}
				return a.printJSON(inst)
			}
			list := []api.Instance{}
			var first error
			for _, name := range names {
				inst, err := c.Instance(cmd.Context(), name)
				if cmd.Context().Err() != nil {
					return cmd.Context().Err()
				}
				if err == nil {
					list = append(list, inst)
					continue
				}
				a.complain(err)
				if first == nil {
					first = exitStatus{code: codeOf(err)}
				}
			}
			if err := a.printJSON(list); err != nil {
				return err
			}
			return first
		},
	}
	cmd.Flags().Bool("json", true, "it is always JSON")
	cmd.Flags().MarkHidden("json")
	return cmd
}

func (a *app) statCommand() *cobra.Command {
	var follow, asJSON bool
	cmd := &cobra.Command{
		Use: "stat NAME PATH", Short: "Describe a file in the guest", GroupID: groupInstances, Args: cobra.ExactArgs(2),
		Long: "Describe a file in the guest. Ends with 3 if there is none.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[1], "/") {
				return usagef("%q is not a path from the guest's root on: want one that begins with /", args[1])
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			info, err := c.StatPath(cmd.Context(), args[0], args[1], follow)
			if err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(info); err != nil {
					return err
				}
			} else if info.Exists {
				fmt.Fprintln(a.Stdout, describe(info, args[1]))
			}
			switch why := or(info.Error, ""); {
			case why != "":
				return fmt.Errorf("%s: %s", args[1], why)
			case !info.Exists && asJSON:
				return exitStatus{code: exitNotFound}
			case !info.Exists:
				return exitStatus{exitNotFound, fmt.Errorf("there is no %s in %s", args[1], args[0])}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow-links", "L", false, "describe what a symbolic link points to")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listed is a mode as `ls -l` has it: fs.FileMode puts L, u, g and t before it, in columns of their own.
func listed(m fs.FileMode) string {
	b := []byte("-" + m.Perm().String()[1:])
	for bit, letter := range map[fs.FileMode]byte{fs.ModeSymlink: 'l', fs.ModeDir: 'd', fs.ModeIrregular: '?'} {
		if m&bit != 0 {
			b[0] = letter
		}
	}
	for i, bit := range map[int]fs.FileMode{3: fs.ModeSetuid, 6: fs.ModeSetgid, 9: fs.ModeSticky} {
		letter := byte('s')
		if bit == fs.ModeSticky {
			letter = 't'
		}
		if m&bit != 0 && b[i] != 'x' {
			letter -= 'a' - 'A'
		}
		if m&bit != 0 {
			b[i] = letter
		}
	}
	return string(b)
}

// describe is a line as `ls -l` has it.
func describe(info api.PathInfo, path string) string {
	mode := fs.FileMode(info.Mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if info.Mode&bit != 0 {
			mode |= flag
		}
	}
	switch {
	case info.IsSymlink:
		mode |= fs.ModeSymlink
	case info.IsDir:
		mode |= fs.ModeDir
	case !info.IsFile:
		mode |= fs.ModeIrregular
	}
	s := fmt.Sprintf("%s  %d  %s", listed(mode), info.Size, oneLine(path))
	if to := or(info.LinkTarget, ""); to != "" {
		s += " → " + oneLine(to)
	}
	return s
}
