// Mutants changes one thing after another in the files that it is given, runs their package's tests on each change, and tells which
// changes no test notices. A page of docs/design explains those that are allowed to survive.
//
// It knows comparisons (their boundary and their opposite, those of time.Time too), boolean operators, conditions, arithmetic,
// min and max, assignments and fields of composite literals that are left out, calls that are not made, and results that are
// zero or the opposite. What does not compile is no mutant. What runs into the time limit is noticed.
package main

import (
	"context"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	explained := flag.String("explained", "", "the `page` that explains what may survive")
	workers := flag.Int("workers", 2, "how many run at once")
	quick := flag.String("quick", "", "a `pattern` of tests that take long: they are left out at first, and run on what survives the others")
	never := flag.String("never", "", "a `pattern` of tests that are not run at all: what they measure, the copies of functions change")
	only := flag.String("only", "", "only mutants whose description holds this `text`")
	again := flag.String("again", "", "the output of an earlier run, as a `file`: only what survived then")
	most := flag.Int("most", 10, "how many may survive")
	list := flag.Bool("list", false, "tell what would be changed, and change nothing")
	flag.Parse()
	if err := run(flag.Args(), *explained, *quick, *never, *only, *again, *workers, *most, *list); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(files []string, explained, quick, never, only, again string, workers, most int, list bool) error {
	var page string
	if explained != "" {
		b, err := os.ReadFile(explained)
		if err != nil {
			return err
		}
		page = string(b)
	}
	var before []string
	if again != "" {
		b, err := os.ReadFile(again)
		if err != nil {
			return err
		}
		before = strings.Split(string(b), "\n")
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
			if strings.Contains(m.String(), only) && (again == "" || slices.Contains(before, "survives: "+m.String())) {
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
	valid, err := check(all)
	if err != nil {
		return err
	}
	binary, err := assemble(valid, dir)
	if err != nil {
		return err
	}
	fmt.Println(len(valid), "mutants;", len(all)-len(valid), "more do not compile")
	all = valid
	survived := make([]bool, len(all))
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				if survived[i] = survives(binary, filepath.Dir(files[0]), i+1, quick, never); survived[i] {
					fmt.Println("survives:", all[i])
				}
			}
		})
	}
	if !survives(binary, filepath.Dir(files[0]), 0, "", never) {
		return fmt.Errorf("the tests fail without a change")
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	return report(all, survived, page, most)
}

func report(all []mutant, survived []bool, page string, most int) error {
	count, unexplained := 0, 0
	for i, m := range all {
		if !survived[i] {
			continue
		}
		count++
		if !strings.Contains(page, m.String()) {
			unexplained++
			fmt.Println("unexplained:", m)
		}
	}
	fmt.Printf("%d mutants: %d noticed, %d survive, %d of them unexplained\n", len(all), len(all)-count, count, unexplained)
	if unexplained > 0 || count > most {
		return fmt.Errorf("at most %d may survive, each explained", most)
	}
	return nil
}

// survives runs the tests on mutant n, those that take long only on what survives the others.
func survives(binary, dir string, n int, quick, never string) bool {
	pass := func(limit time.Duration, args ...string) bool {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		tests := exec.CommandContext(ctx, binary, append(args, "-test.failfast", "-rapid.shrinktime=1ms", "-rapid.nofailfile")...)
		tests.Dir, tests.Env = dir, append(os.Environ(), fmt.Sprintf("%s=%d", variable, n))
		out, err := tests.CombinedOutput()
		if err != nil && n == 0 {
			os.Stderr.Write(out)
		}
		return err == nil
	}
	if quick != "" && !pass(15*time.Second, "-test.skip="+quick) {
		return false
	}
	if never == "" {
		never = "^$" // skips nothing
	}
	return pass(time.Minute, "-test.skip="+never)
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
