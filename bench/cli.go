package main

import (
	"context"
	"fmt"
	"time"
)

const (
	psRounds  = 20
	runRounds = 10
)

// benchCLI measures commands as a person feels them: from the start of the process to its end.
func benchCLI(ctx context.Context, s *site) error {
	return s.withDaemon(ctx, "cli", func(d *daemon) error {
		var nothing, ps, run, wait []float64
		for range psRounds {
			for _, c := range []struct {
				to   *[]float64
				args []string
			}{{&nothing, []string{"--version"}}, {&ps, []string{"ps"}}} {
				t, err := d.timed(ctx, c.args...)
				if err != nil {
					return err
				}
				*c.to = append(*c.to, t)
			}
		}
		memory := fmt.Sprintf("%dMB", machineMemory>>20)
		for i := range runRounds {
			for _, c := range []struct {
				to   *[]float64
				more []string
			}{{&run, nil}, {&wait, []string{"--wait", "--health-http", ":80/"}}} {
				if c.to == &wait && i >= runRounds/2 {
					continue // each is a whole boot
				}
				t, err := d.timed(ctx, append(append([]string{"run", "--name", "felt", "-m", memory}, c.more...), "bench/guest")...)
				if err != nil {
					return err
				}
				*c.to = append(*c.to, t)
				if _, err := d.run(ctx, "rm", "--force", "felt"); err != nil {
					return err
				}
			}
		}
		base := median(nothing)
		const beside = "`hale --version`"
		s.report.add(row{what: "`hale ps`, whole process", unit: milliseconds, figure: median(ps), reference: base, beside: beside})
		s.report.add(row{what: "`hale run`, whole process", unit: milliseconds, figure: median(run), reference: base, beside: beside})
		s.report.add(row{what: "`hale run --wait`, to healthy, whole process", unit: milliseconds, figure: median(wait), reference: base, beside: beside})
		s.report.note("Commands: medians of %d, %d and %d.", psRounds, runRounds, runRounds/2)
		return nil
	})
}

func (d *daemon) timed(ctx context.Context, args ...string) (float64, error) {
	began := time.Now()
	_, err := d.run(ctx, args...)
	return ms(time.Since(began)), err
}
