package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// variable names the environment variable that switches a mutant on, by its number from 1; 0 is the code as it is.
const variable = "HALE_MUTANT"

// check returns the mutants that compile. The package may import nothing but the standard library.
func check(all []mutant) ([]mutant, error) {
	if len(all) == 0 {
		return nil, fmt.Errorf("nothing can be changed")
	}
	build.Default.CgoEnabled = false
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(all[0].file), "*.go"))
	if err != nil {
		return nil, err
	}
	parsed := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if parsed[filepath.Base(name)], err = parser.ParseFile(fset, name, nil, parser.SkipObjectResolution); err != nil {
			return nil, err
		}
	}
	std := importer.ForCompiler(fset, "source", nil)
	var valid []mutant
	for _, m := range all {
		changed, err := parser.ParseFile(fset, m.file, m.source, parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		files := []*ast.File{changed}
		for name, f := range parsed {
			if name != filepath.Base(m.file) {
				files = append(files, f)
			}
		}
		config := types.Config{Importer: std}
		if _, err := config.Check("p", fset, files, nil); err == nil {
			valid = append(valid, m)
		}
	}
	return valid, nil
}

// assemble makes one test binary that holds all mutants: each is a copy of its function, which that calls when it is switched on.
func assemble(all []mutant, dir string) (string, error) {
	type patch struct {
		in    *function
		cases strings.Builder
	}
	type file struct {
		patches []*patch
		copies  strings.Builder
	}
	files := map[string]*file{}
	for i, m := range all {
		src, err := os.ReadFile(m.file)
		if err != nil {
			return "", err
		}
		f := files[m.file]
		if f == nil {
			f = new(file)
			files[m.file] = f
		}
		if n := len(f.patches); n == 0 || f.patches[n-1].in != m.in {
			f.patches = append(f.patches, &patch{in: m.in})
		}
		if m.in.recovers { // which it may only when it is what was deferred: the change stands in it
			fmt.Fprintf(&f.patches[len(f.patches)-1].cases, "case %d: %s; return;", i+1, m.copy[m.in.body-1-m.in.named:])
			continue
		}
		name := fmt.Sprintf("%s_mutant%d", m.in.name, i+1)
		call := fmt.Sprintf(m.in.call, name)
		if m.in.results {
			call = "return " + call
		} else {
			call += "; return"
		}
		fmt.Fprintf(&f.patches[len(f.patches)-1].cases, "case %d: %s;", i+1, call)
		start := string(src[m.in.start:m.in.named])
		start = strings.TrimSuffix(start, m.in.name)
		fmt.Fprintf(&f.copies, "\n%s%s%s\n", start, name, m.copy)
	}
	replace := map[string]string{}
	put := func(name, text string) error {
		abs, err := filepath.Abs(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		replace[abs] = to
		return os.WriteFile(to, []byte(text), 0o600)
	}
	for name, f := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		text := string(src)
		for _, p := range slices.Backward(f.patches) {
			text = text[:p.in.body] + "switch mutant {" + p.cases.String() + "};" + text[p.in.body:]
		}
		if err := put(name, text+f.copies.String()); err != nil {
			return "", err
		}
	}
	first := filepath.Dir(all[0].file)
	pkg, err := parser.ParseFile(token.NewFileSet(), all[0].file, nil, parser.PackageClauseOnly)
	if err != nil {
		return "", err
	}
	err = put(filepath.Join(first, "mutant_switch.go"), fmt.Sprintf(
		"package %s\n\nimport (\n\t\"os\"\n\t\"strconv\"\n)\n\nvar mutant, _ = strconv.Atoi(os.Getenv(%q))\n", pkg.Name.Name, variable))
	if err != nil {
		return "", err
	}
	j, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tests")
	if err := os.WriteFile(overlay, j, 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".")
	cmd.Dir = first
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the mutants: %w\n%s", err, out)
	}
	return binary, nil
}
