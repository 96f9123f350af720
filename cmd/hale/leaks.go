package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/halevm/hale/internal/leak"
)

// errLeftovers makes the exit code of a doctor that found some tell.
var errLeftovers = errors.New("something is left over: see above")

// printHoldings prints what the data directory's processes hold, what is left over last.
func printHoldings(w io.Writer, holdings []leak.Holding, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(holdings)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(h leak.Holding) {
		pid := ""
		if h.PID != 0 {
			pid = fmt.Sprint(h.PID)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", h.Owner, h.Kind, pid, h.What)
	}
	for _, h := range holdings {
		if !h.Left {
			line(h)
		}
	}
	for _, h := range holdings {
		if h.Left {
			line(h)
			fmt.Fprintf(t, "left over\t\t\t→ %s\n", h.Mend)
		}
	}
	return t.Flush()
}

// doctorOfLeaks is hale doctor --leaks.
func doctorOfLeaks(w io.Writer, dataDir string, asJSON bool) error {
	holdings, err := leak.Look(dataDir)
	if err != nil {
		return err
	}
	if err := printHoldings(w, holdings, asJSON); err != nil {
		return err
	}
	for _, h := range holdings {
		if h.Left {
			return errLeftovers
		}
	}
	return nil
}
