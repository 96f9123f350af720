package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The bare init is a program that this host runs too.
func TestBareInit(t *testing.T) {
	const size = 10_000
	b, err := bareInit(size)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != size {
		t.Errorf("%d bytes, not %d", len(b), size)
	}
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != bareWord+"\n" {
		t.Errorf("it says %q, %v", line, err)
	}
	if _, err := cpuTime(cmd.Process.Pid); err != nil {
		t.Error("it does not wait:", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := bareInit(10); err == nil {
		t.Error("one of ten bytes is possible")
	}
}

func TestPhasesIn(t *testing.T) {
	got := phasesIn("noise\r\nlevel=INFO msg=prepared init=1.0905s modules=1.2s network=1.3001s\r\nmore")
	if want := (phases{{"init", 1090.5}, {"modules", 1200}, {"network", 1300.1}}); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if got := phasesIn("level=INFO msg=\"something else\" init=1s"); got != nil {
		t.Errorf("%v in a line that tells none", got)
	}
	if said := profile([]phases{got, got}, 1000, 1500); said == "" || !strings.Contains(profile([]phases{{{"a", 10}, {"b", 30}}}, 1000, 1500), "500 ms. By the guest's own clock, ms: a at 10, b 20.") {
		t.Error(said)
	}
}

func TestRow(t *testing.T) {
	for _, c := range []struct {
		row  row
		want string
	}{
		{row{figure: 1.4, reference: 1, mostRatio: 1.5}, "met"},
		{row{figure: 1.6, reference: 1, mostRatio: 1.5}, "not met"},
		{row{figure: 9e6, most: 8e6}, "not met"},
		{row{figure: 2, reference: 1, mostRatio: 1, more: true}, "met"},
		{row{figure: 1, reference: 2, mostRatio: 1, more: true}, "not met"},
		{row{figure: 1, reference: 2}, ""},
		{row{figure: 0, zero: true}, "met"},
		{row{figure: 1, zero: true}, "not met"},
	} {
		c.row.unit = milliseconds
		if cells := c.row.cells(); cells[len(cells)-1] != c.want {
			t.Errorf("%+v: %q", c.row, cells)
		}
	}
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Error(m)
	}
	if m := median([]float64{4, 1, 2, 3}); m != 2.5 {
		t.Error(m)
	}
}
