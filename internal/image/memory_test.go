package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// heap is what is in use of it, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools hold
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// hostile writes a layer of n entries to the disk, for it must not be in the heap.
func hostile(t *testing.T, n int, header func(i int) *tar.Header) *layer {
	t.Helper()
	f := must(os.Create(filepath.Join(t.TempDir(), "layer")))
	defer f.Close()
	b := bufio.NewWriter(f)
	tw := tar.NewWriter(b)
	for i := range n {
		h := header(i)
		h.Format = tar.FormatPAX
		must(0, tw.WriteHeader(h))
	}
	must(0, tw.Close())
	must(0, b.Flush())
	return &layer{number: 1, plain: f.Name(), plainSize: must(f.Stat()).Size()}
}

// Of a header that is large only what the budget counts stays in memory, however small a part of it that is.
func TestHeadersDoNotStay(t *testing.T) {
	const entries, size, most = 100, 20_000, 300_000
	junk := strings.Repeat("j", size)
	slashes := strings.Repeat("/", size)
	beside := func(kind byte, name, link string, records ...string) *tar.Header {
		h := &tar.Header{Typeflag: kind, Name: name, Linkname: link, PAXRecords: map[string]string{"X.junk": junk}}
		for i := 0; i < len(records); i += 2 {
			h.PAXRecords[xattrPrefix+records[i]] = records[i+1]
		}
		return h
	}
	for name, header := range map[string]func(i int) *tar.Header{
		"a file":                     func(i int) *tar.Header { return beside(tar.TypeReg, fmt.Sprint("ü", i), "") },
		"the target of a link":       func(i int) *tar.Header { return beside(tar.TypeSymlink, fmt.Sprint(i), "ü") },
		"an attribute":               func(i int) *tar.Header { return beside(tar.TypeDir, fmt.Sprint(i), "", "user.a", "value") },
		"an access control list":     func(i int) *tar.Header { return beside(tar.TypeDir, fmt.Sprint(i), "", aclDefault, acl) },
		"a name of a long one":       func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i, slashes)} },
		"a directory of a long name": func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i, "/f", slashes)} },
		"a whiteout of a long name":  func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(whiteoutPrefix, i, slashes)} },
	} {
		t.Run(name, func(t *testing.T) {
			l := hostile(t, entries, header)
			b := newEarlyBudget()
			before := heap()
			tree := newLayerTree(0, b)
			must(0, l.each(t.Context(), tree.add))
			if more := heap() - before; more > most {
				t.Errorf("the tree of %d entries with %d bytes of names keeps %d bytes", b.entries.Load(), b.names.Load(), more)
			}
			runtime.KeepAlive(tree)

			st := must(newStaging(t.TempDir()))
			defer st.release()
			f := must(os.Open(l.plain))
			defer f.Close()
			before = heap()
			m := must(storeMember(t.Context(), f, l.plainSize, st, newEarlyBudget()))
			if more := heap() - before; more > most || m.early.tree.Load() == nil {
				t.Errorf("the tree that is made on the way, %v, keeps %d bytes", m.early.tree.Load(), more)
			}
			runtime.KeepAlive(m)
		})
	}
}

// The trees that are made early take as much as early.go says of them, whatever they are of: here a tenth of it.
func TestEarlyMemory(t *testing.T) {
	const most = 40_000_000 / 10
	crowd := make(map[string]string) // as many as a file can have, and as small
	for i := range 180 {
		crowd[fmt.Sprintf("%suser.%c", xattrPrefix, 'a'+i)] = ""
	}
	for name, header := range map[string]func(i int) *tar.Header{
		"files":       func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i)} },
		"long names":  func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprintf("%0160d", i)} },
		"directories": func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i, "/f")} },
		"whiteouts":   func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i, "/.wh.f")} },
		"an attribute": func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprint(i, "/"), PAXRecords: map[string]string{xattrPrefix + "user.a": strings.Repeat("v", 80)}}
		},
		"attributes": func(i int) *tar.Header { return &tar.Header{Name: fmt.Sprint(i), PAXRecords: crowd} },
	} {
		t.Run(name, func(t *testing.T) {
			n := earlyEntries / 10
			if name == "attributes" {
				n /= 8
			}
			l := hostile(t, n, header)
			tree := newLayerTree(0, &budget{limits: Limits{Entries: earlyEntries / 10, Names: earlyNames / 10}})
			before := heap()
			err := l.each(t.Context(), tree.add)
			if more := heap() - before; more > most {
				t.Errorf("it keeps %d bytes (%v)", more, err)
			}
			runtime.KeepAlive(tree)
		})
	}
}

// What is kept of an archive's own names is bounded, too.
func TestNamesOfMembers(t *testing.T) {
	const size = 1 << 19
	for name, member := range map[string]func(i int) entry{
		"names":         func(i int) entry { return file(fmt.Sprint(i, strings.Repeat("n", size)), "") },
		"cleaned names": func(i int) entry { return file(fmt.Sprint(strings.Repeat("/", size), i), "") },
		"links":         func(i int) entry { return symlink(fmt.Sprint(i), strings.Repeat("l", size)) },
		"hard links":    func(i int) entry { return hardlink(fmt.Sprint(i), strings.Repeat("l", size)) },
	} {
		t.Run(name, func(t *testing.T) {
			var members []entry
			for i := range maxMemberNames / size {
				members = append(members, member(i))
			}
			s := openStore(t, t.TempDir(), Options{})
			_, err := s.Import(t.Context(), bytes.NewReader(tarOf(members...)), ImportOptions{})
			refused(t, err, "image_too_large", "more than 4194304 bytes")
		})
	}
}
