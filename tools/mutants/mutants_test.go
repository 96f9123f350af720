package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const sample = `package p

type s struct{ n, m int }

func (s *s) step(a, b int, ok bool) bool {
	if a < b && !ok {
		s.n, s.m = 1, 2
		s.n++
	}
	return a == b
}
`

func TestMutate(t *testing.T) {
	all, err := mutate("p.go", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all {
		got = append(got, m.String())
	}
	want := []string{
		"p.go: `if a < b && !ok {`: `&&` becomes `||`",
		"p.go: `if a < b && !ok {`: `<` becomes `>=`",
		"p.go: `if a < b && !ok {`: `<` becomes `<=`",
		"p.go: `if a < b && !ok {`: `!ok` becomes `(ok)`",
		"p.go: `s.n, s.m = 1, 2`: `1` becomes `s.n`",
		"p.go: `s.n, s.m = 1, 2`: `2` becomes `s.m`",
		"p.go: `s.n++`: `s.n++` becomes `_ = s.n`",
		"p.go: `return a == b`: `==` becomes `!=`",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// The whole: what tests notice and what they do not, and a change that does not compile.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	put("go.mod", "module p\n\ngo 1.24\n")
	file := put("p.go", `package p

func double(n int) int {
	m := n
	if n > 0 {
		m += n
	}
	return m
}
`)
	// -rapid flags are for the test binary of the engine: a test that knows none must take them all the same.
	put("p_test.go", `package p

import (
	"flag"
	"testing"
)

var _, _ = flag.String("rapid.shrinktime", "", ""), flag.Bool("rapid.nofailfile", false, "")

func TestDouble(t *testing.T) {
	if double(2) != 4 {
		t.Error("no")
	}
}
`)
	if err := run([]string{file}, "", "", "", "", "", 1, 10, false); err == nil {
		t.Error("what survives unexplained is no error")
	}
	page := put("page.md", "p.go: `if n > 0 {`: `>` becomes `>=`")
	if err := run([]string{file}, page, "", "", "", "", 1, 10, false); err != nil {
		t.Error(err)
	}
	if err := run([]string{file}, page, "", "", "", "", 1, 0, false); err == nil {
		t.Error("too many survive")
	}
}

// A function that was deferred and recovers does so with a change, too: what nobody notices of it survives.
func TestRunOfWhatRecovers(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	put("go.mod", "module p\n\ngo 1.24\n")
	file := put("p.go", `package p

var times int

func caught(failed *bool) {
	if recover() != nil {
		*failed = true
		times++
	}
}
`)
	put("p_test.go", `package p

import (
	"flag"
	"testing"
)

var _, _ = flag.String("rapid.shrinktime", "", ""), flag.Bool("rapid.nofailfile", false, "")

func TestCaught(t *testing.T) {
	var failed bool
	func() { defer caught(&failed); panic("no") }()
	if !failed {
		t.Error("no")
	}
}
`)
	page := put("page.md", "p.go: `times++`: `times++` becomes `_ = times`")
	if err := run([]string{file}, page, "", "", "", "", 1, 1, false); err != nil {
		t.Error(err)
	}
	if err := run([]string{file}, page, "", "", "", "", 1, 0, false); err == nil {
		t.Error("nothing survives")
	}
}
