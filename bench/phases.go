package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// phases are when the guest's agent came to its steps, in ms of the guest's own clock, in their order.
type phases []phase

type phase struct {
	name string
	at   float64
}

var (
	phasesLine = regexp.MustCompile(`msg=prepared (.*)`)
	phaseField = regexp.MustCompile(`(\w+)=([0-9.]+m?s)`)
)

// phasesIn finds them in what the agent says on the console.
func phasesIn(console string) phases {
	line := phasesLine.FindStringSubmatch(console)
	if line == nil {
		return nil
	}
	var p phases
	for _, f := range phaseField.FindAllStringSubmatch(line[1], -1) {
		if d, err := time.ParseDuration(f[2]); err == nil {
			p = append(p, phase{f[1], ms(d)})
		}
	}
	return p
}

// profile says where the time of the boots went, between the bare boot and Running.
func profile(all []phases, bare, running float64) string {
	if len(all) == 0 || len(all[0]) == 0 {
		return "The agent told no steps."
	}
	var said []string
	before := -1.0
	for i, p := range all[0] {
		var v []float64
		for _, one := range all {
			if len(one) == len(all[0]) {
				v = append(v, one[i].at)
			}
		}
		at := median(v)
		if before >= 0 {
			said = append(said, fmt.Sprintf("%s %.0f", p.name, at-before))
		} else {
			said = append(said, fmt.Sprintf("%s at %.0f", p.name, at))
		}
		before = at
	}
	return fmt.Sprintf("What hale adds to a bare boot: %.0f ms. By the guest's own clock, ms: %s.", running-bare, strings.Join(said, ", "))
}
