// Mutants changes one thing after another in the files that it is given, runs their package's tests on each change, and tells which
// changes no test notices. A page of docs/design explains those that are allowed to survive.
//
// It knows comparisons (their boundary and their opposite, those of time.Time too), boolean operators, conditions, arithmetic,
// min and max, assignments and fields of composite literals that are left out, calls that are not made, and results that are
// zero or the opposite. What does not compile is no mutant. What runs into the time limit is noticed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

func main() {
	explained := flag.String("explained", "", "the `page` that explains what may survive")
	workers := flag.Int("workers", 2, "how many run at once")
	quick := flag.String("quick", "", "a `pattern` of tests that take long: they are left out at first, and run on what survives the others")
	only := flag.String("only", "", "only mutants whose description holds this `text`")
	most := flag.Int("most", 10, "how many may survive")
	list := flag.Bool("list", false, "tell what would be changed, and change nothing")
	flag.Parse()
	if err := run(flag.Args(), *explained, *quick, *only, *workers, *most, *list); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(files []string, explained, quick, only string, workers, most int, list bool) error {
	var page string
	if explained != "" {
		b, err := os.ReadFile(explained)
		if err != nil {
			return err
		}
		page = string(b)
	}
	var all []mutant
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		found, err := mutate(name, src)
		if err != nil {
			return err
		}
		for _, m := range found {
			if strings.Contains(m.String(), only) {
				all = append(all, m)
			}
		}
	}
	if list {
		for _, m := range all {
			fmt.Println(m)
		}
		fmt.Println(len(all), "mutants")
		return nil
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	outcomes := make([]outcome, len(all))
	next := make(chan int)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range next {
				outcomes[i] = judge(all[i], filepath.Join(dir, fmt.Sprint(w)), quick)
				if outcomes[i] == survived {
					fmt.Println("survives:", all[i])
				}
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	return report(all, outcomes, page, most)
}

// An outcome is what became of a mutant.
type outcome int

const (
	noticed outcome = iota
	survived
	invalid // it does not compile
)

func report(all []mutant, outcomes []outcome, page string, most int) error {
	var count [3]int
	unexplained := 0
	for i, o := range outcomes {
		count[o]++
		if o == survived && !strings.Contains(page, all[i].String()) {
			unexplained++
			fmt.Println("unexplained:", all[i])
		}
	}
	fmt.Printf("%d mutants: %d noticed, %d survive, %d of them unexplained; %d more do not compile\n",
		count[noticed]+count[survived], count[noticed], count[survived], unexplained, count[invalid])
	if unexplained > 0 || count[survived] > most {
		return fmt.Errorf("at most %d may survive, each explained", most)
	}
	return nil
}

// judge runs the tests of a mutant's package.
func judge(m mutant, dir, quick string) outcome {
	args := []string{"-failfast", "-rapid.shrinktime=1ms", "-rapid.nofailfile"}
	if quick != "" {
		if o := test(m, dir, 30*time.Second, append(args, "-test.skip="+quick)); o != survived {
			return o
		}
	}
	return test(m, dir, 3*time.Minute, args)
}

func test(m mutant, dir string, limit time.Duration, args []string) outcome {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		panic(err)
	}
	abs, err := filepath.Abs(m.file)
	if err != nil {
		panic(err)
	}
	changed, overlay, binary := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tests")
	write(changed, m.source)
	j, err := json.Marshal(map[string]map[string]string{"Replace": {abs: changed}})
	if err != nil {
		panic(err)
	}
	write(overlay, j)
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, ".")
	build.Dir = filepath.Dir(abs)
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv("MUTANTS_DEBUG") != "" {
			fmt.Printf("%s: %s\n", m, out)
		}
		return invalid
	}
	for i, a := range args { // flags of the package testing have a prefix in a test binary
		if a == "-failfast" {
			args[i] = "-test.failfast"
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit+10*time.Second)
	defer cancel()
	tests := exec.CommandContext(ctx, binary, append(args, "-test.timeout="+limit.String())...)
	tests.Dir = filepath.Dir(abs)
	if err := tests.Run(); err != nil {
		return noticed
	}
	return survived
}

func write(name string, b []byte) {
	if err := os.WriteFile(name, b, 0o600); err != nil {
		panic(err)
	}
}

// mutate finds what can be changed in one file.
func mutate(name string, src []byte) ([]mutant, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	v := &visitor{name: name, src: src, file: fset.File(f.Pos()), seen: map[string]int{}}
	for _, d := range f.Decls {
		v.decl(d)
	}
	return v.found, nil
}
