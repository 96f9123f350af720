package sandbox

import (
	"os/exec"
	"testing"
)

// What the confinement adds to the start of a program.
func BenchmarkStart(b *testing.B) {
	for name, start := range map[string]func() error{
		"plain": func() error { return exec.Command("/bin/true").Run() },
		"confined": func() error {
			cmd := exec.Command("/bin/true")
			release, err := Confinement{Landlock: true, Rules: libraries, Seccomp: true}.Prepare(cmd)
			if err != nil {
				return err
			}
			if err := cmd.Start(); err != nil {
				return err
			}
			if err := release(); err != nil {
				return err
			}
			return cmd.Wait()
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := start(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
