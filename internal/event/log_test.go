package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
)

func openLog(t *testing.T, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func appendN(t *testing.T, l *Log, n int) (last Event) {
	t.Helper()
	for range n {
		e, err := l.Append(t.Context(), TypeState, "i", "n", StateChange{From: "a", To: "b"})
		if err != nil {
			t.Fatal(err)
		}
		last = e
	}
	return last
}

// read reads until the log is at its end, and checks that nothing is missing on the way.
func read(t *testing.T, l *Log, r *Reader) (seqs []uint64, resyncs int) {
	t.Helper()
	end := l.Last()
	for {
		if n := len(seqs); n > 0 && seqs[n-1] == end.Seq || n == 0 && r.next == end.Seq+1 && !r.lost {
			return seqs, resyncs
		}
		e, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == TypeResync {
			resyncs++
			if e.ID == end {
				return seqs, resyncs
			}
			continue
		}
		if n := len(seqs); n > 0 && e.ID.Seq != seqs[n-1]+1 {
			t.Fatalf("event %s after %d", e.ID, seqs[n-1])
		}
		seqs = append(seqs, e.ID.Seq)
	}
}

func TestAppendAndFollow(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	r := l.Follow(ID{}, "test")
	defer r.Close()
	code := 3
	want, err := l.Append(t.Context(), TypeState, "id", "web", StateChange{From: "Running", To: "Stopped", Code: &code})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != want.ID || got.ID != l.Last() || got.Instance != "id" || got.Name != "web" || !got.Time.Equal(want.Time) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var c StateChange
	if err := json.Unmarshal(got.Data, &c); err != nil || *c.Code != 3 || c.To != "Stopped" {
		t.Errorf("data %s, %v", got.Data, err)
	}
}

// What an event tells is in place before anyone reads the event.
func TestCommitThen(t *testing.T) {
	l := openLog(t, "", Options{})
	var told ID
	e, err := l.Commit(t.Context(), TypeState, "i", "n", nil, func(e Event) {
		told = e.ID
		if l.Last() == e.ID {
			t.Error("readers see the event already")
		}
	})
	if err != nil || told != e.ID || l.Last() != e.ID {
		t.Errorf("told %s, last %s, want %s; %v", told, l.Last(), e.ID, err)
	}
	if _, err := l.Commit(t.Context(), TypeState, "i", "n", strings.Repeat("x", maxRecord), func(Event) { t.Error("told of nothing") }); err == nil {
		t.Error("took an event over the bound")
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, "", Options{})
		r := l.Follow(ID{}, "test")
		got := make(chan uint64)
		go func() {
			e, _ := r.Next(t.Context())
			got <- e.ID.Seq
		}()
		synctest.Wait()
		appendN(t, l, 1)
		if seq := <-got; seq != 1 {
			t.Errorf("got %d", seq)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("enough"))
		defer cancel()
		if _, err := r.Next(ctx); err == nil || err.Error() != "enough" {
			t.Errorf("with an ended context: %v", err)
		}
		go func() {
			_, err := r.Next(t.Context())
			if !errors.Is(err, ErrClosed) {
				t.Errorf("closed reader: %v", err)
			}
			close(got)
		}()
		synctest.Wait()
		r.Close()
		<-got
	})
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	appendN(t, l, 5)
	third := ID{l.Last().Epoch, 3}
	l.Close()
	if _, err := l.Append(t.Context(), TypeState, "", "", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("append to a closed log: %v", err)
	}

	l2 := openLog(t, dir, Options{})
	if l2.Last() != (ID{third.Epoch, 5}) {
		t.Fatalf("last %s, want %s-5", l2.Last(), third.Epoch)
	}
	appendN(t, l2, 2)
	r := l2.Follow(third, "test")
	if seqs, resyncs := read(t, l2, r); resyncs != 0 || fmt.Sprint(seqs) != "[4 5 6 7]" {
		t.Errorf("read %v with %d resyncs", seqs, resyncs)
	}
}

// However many bytes of the last record reached the disk, it is cut off, its place is never taken for another's, and
// a reader from before it loses nothing.
func TestTornTail(t *testing.T) {
	master := t.TempDir()
	l := openLog(t, master, Options{})
	appendN(t, l, 2)
	epoch := l.Last().Epoch
	name := filepath.Join(master, segmentName(1))
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1)
	l.Close()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for size := int(before.Size()) + 1; size < len(whole); size++ {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(1)), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second opening finds the new epoch
			l := openLog(t, dir, Options{})
			if l.Last() != (ID{epoch, 2}) {
				t.Fatalf("cut at %d: last %s, want %s-2", size, l.Last(), epoch)
			}
			l.Close()
		}
		l := openLog(t, dir, Options{})
		if e := appendN(t, l, 1); e.ID.Seq != 3 || e.ID.Epoch == epoch {
			t.Fatalf("cut at %d: next %s, want number 3 of another epoch than %s", size, e.ID, epoch)
		}
		if seqs, resyncs := read(t, l, l.Follow(ID{epoch, 1}, "before")); resyncs != 0 || fmt.Sprint(seqs) != "[2 3]" {
			t.Fatalf("cut at %d: from before the loss %v, %d resyncs", size, seqs, resyncs)
		}
		if _, resyncs := read(t, l, l.Follow(ID{epoch, 3}, "behind")); resyncs != 1 {
			t.Fatalf("cut at %d: who read what was lost was not told", size)
		}
	}
}

func TestDamage(t *testing.T) {
	fill := func(t *testing.T) (dir string, epoch string) {
		dir = t.TempDir()
		l := openLog(t, dir, Options{MaxEvents: 80}) // ten in a segment
		appendN(t, l, 35)
		l.Close()
		return dir, l.Last().Epoch
	}
	flip := func(t *testing.T, dir string, first uint64, at int) {
		name := filepath.Join(dir, segmentName(first))
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[at] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name        string
		first       uint64 // the segment that is damaged
		at          int
		oldest      uint64 // what can be read afterwards
		last        uint64
		sameEpoch   bool
		wantedAside int
	}{
		{"a record in the middle", 11, 200, 21, 35, true, 2},
		{"a header in the middle", 11, 3, 21, 35, true, 2},
		{"the first header", 1, 3, 11, 35, true, 1},
		{"the last header", 31, 3, 1, 30, false, 1},
		{"a record of the last", 31, 60, 1, 30, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, epoch := fill(t)
			flip(t, dir, tt.first, tt.at)
			l := openLog(t, dir, Options{MaxEvents: 80})
			if l.Last().Seq != tt.last {
				t.Fatalf("last %s, want %d", l.Last(), tt.last)
			}
			e := appendN(t, l, 1)
			if (e.ID.Epoch == epoch) != tt.sameEpoch || e.ID.Seq != tt.last+1 {
				t.Errorf("next %s after epoch %s", e.ID, epoch)
			}
			seqs, resyncs := read(t, l, l.Follow(ID{epoch, tt.oldest - 1}, "test"))
			if tt.oldest == 1 {
				seqs, resyncs = read(t, l, l.Follow(ID{epoch, 1}, "test"))
				seqs = append([]uint64{1}, seqs...)
			}
			if resyncs != 0 || uint64(len(seqs)) != tt.last+1-tt.oldest+1 {
				t.Errorf("read %v, %d resyncs", seqs, resyncs)
			}
			aside, err := filepath.Glob(filepath.Join(dir, "*.unreadable-*"))
			if err != nil || len(aside) != tt.wantedAside {
				t.Errorf("set aside: %v, %v; want %d", aside, err, tt.wantedAside)
			}
		})
	}
}

func TestRetention(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{MaxEvents: 5000})
	start := l.Last()
	behind := l.Follow(start, "behind")
	appendN(t, l, 1)
	if _, err := behind.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.Oldest() != start {
		t.Errorf("oldest %s, want %s", l.Oldest(), start)
	}
	fill(t, l, 3000)
	r := l.Follow(ID{start.Epoch, 1}, "from the files")
	if seqs, resyncs := read(t, l, r); resyncs != 0 || len(seqs) != 3000 {
		t.Errorf("read %d events, %d resyncs", len(seqs), resyncs)
	}
	c := l.Consumers()
	if len(c) != 2 || c[0].Name != "behind" || c[0].Lag != 3001 || c[0].OldestUnread <= 0 || c[1].Lag != 1 {
		t.Errorf("consumers %+v", c)
	}
	fill(t, l, 4000)
	e, err := behind.Next(t.Context())
	if err != nil || e.Type != TypeResync || e.ID != l.Last() {
		t.Fatalf("a reader that fell behind got %+v, %v", e, err)
	}
	appendN(t, l, 1)
	if e, err := behind.Next(t.Context()); err != nil || e.ID != l.Last() {
		t.Errorf("after the resync %+v, %v", e, err)
	}
	if c := l.Consumers(); c[0].Resyncs != 1 || c[0].Lag != 1 {
		t.Errorf("consumers %+v", c)
	}
	behind.Close()
	again := l.Follow(ID{}, "behind")
	if n := l.Resyncs(); n["behind"] != 1 || n["from the files"] != 0 || len(n) != 2 {
		t.Errorf("resyncs after the reader was closed %v", n)
	}
	again.Close()
	if seqs, resyncs := read(t, l, l.Follow(l.Oldest(), "all")); resyncs != 0 || len(seqs) < 4000 || len(seqs) > 5000 {
		t.Errorf("all that is kept: %d events, %d resyncs", len(seqs), resyncs)
	}
	segs, err := filepath.Glob(filepath.Join(l.fs.(*directory).root.Name(), "*.log"))
	if err != nil || len(segs) > segments+1 {
		t.Errorf("%d segments are kept: %v", len(segs), err)
	}
}

// fill appends many events at once.
func fill(t *testing.T, l *Log, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := l.Append(t.Context(), TypeState, "i", "n", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Appends that come together share an fsync, and readers see them all.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFaulty()
		l, err := openFiles(d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := l.Follow(ID{}, "test")
		gate := make(chan struct{})
		d.set(&fault{room: 1 << 20, gate: gate}) // the disk is slow
		before := d.syncs
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if _, err := l.Append(t.Context(), TypeState, "i", "n", nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if seqs, _ := read(t, l, r); len(seqs) != 500 {
			t.Errorf("read %d", len(seqs))
		}
		if n := d.syncs - before; n > 2 {
			t.Errorf("%d syncs for 500 appends", n)
		}
	})
}

func TestDiskFull(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault
	}{
		{"nothing is written", fault{room: 0}},
		{"a part is written", fault{room: 30}},
		{"a part is written and cannot be cut off", fault{room: 30, noTruncate: true}},
		{"the sync fails", fault{room: 1 << 20, noSync: true}},
		{"the sync fails and nothing can be cut off", fault{room: 1 << 20, noSync: true, noTruncate: true}},
		{"no file can be made", fault{room: 0, noCreate: true, noTruncate: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newFaulty()
			l, err := openFiles(d, Options{})
			if err != nil {
				t.Fatal(err)
			}
			r := l.Follow(ID{}, "test")
			appendN(t, l, 3)
			for range 3 {
				d.set(&tt.fault)
				for range 3 {
					_, err := l.Append(t.Context(), TypeState, "i", "n", nil)
					if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
						t.Fatalf("append: %v", err)
					}
				}
				d.set(nil)
				appendN(t, l, 2)
			}
			if seqs, resyncs := read(t, l, r); len(seqs) != 9 || resyncs != 0 {
				t.Errorf("read %v, %d resyncs", seqs, resyncs)
			}
			epoch := l.Last().Epoch
			l.Close()
			again, err := openFiles(d, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if again.Last() != (ID{epoch, 9}) {
				t.Errorf("after opening again the last is %s, want %s-9", again.Last(), epoch)
			}
			if seqs, _ := read(t, again, again.Follow(ID{epoch, 2}, "test")); len(seqs) != 7 {
				t.Errorf("after opening again %v", seqs)
			}
		})
	}
}

// A new segment whose name may be on the disk or not is where the one before ends: what is appended next goes behind it, and is there after a
// restart.
func TestSegmentThatMayBeThere(t *testing.T) {
	d := newFaulty()
	o := Options{MaxBytes: segments * 1000}
	l, err := openFiles(d, o)
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 5)
	d.set(&fault{room: 1 << 20, noRename: true})
	if _, err := l.Append(t.Context(), TypeState, "i", "n", StateChange{Reason: strings.Repeat("x", 900)}); err == nil {
		t.Fatal("it was taken")
	}
	d.set(nil)
	last := appendN(t, l, 1) // which finds room in the segment before
	l.Close()
	if l, err = openFiles(d, o); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Last() != last.ID {
		t.Errorf("last is %s, want %s", l.Last(), last.ID)
	}
}

// A torn log on a full disk opens, and its new epoch begins with the first append that succeeds.
func TestOpenTornOnFullDisk(t *testing.T) {
	d := newFaulty()
	l, err := openFiles(d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 3)
	epoch := l.Last().Epoch
	l.Close()
	b := d.files[segmentName(1)]
	b.Truncate(b.Len() - 5)
	d.set(&fault{noCreate: true})
	if l, err = openFiles(d, Options{}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Append(t.Context(), TypeState, "", "", nil); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("append: %v", err)
	}
	d.set(nil)
	if e := appendN(t, l, 1); e.ID.Seq != 3 || e.ID.Epoch == epoch {
		t.Errorf("next %s, want number 3 of a new epoch", e.ID)
	}
}

func TestWaitConsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLog(t, "", Options{})
		if err := l.WaitConsumed(t.Context(), "nobody", l.Last()); !errors.Is(err, api.NotFound) {
			t.Errorf("no such consumer: %v", err)
		}
		r := l.Follow(ID{}, "health")
		second := appendN(t, l, 2).ID
		waited := make(chan error, 1)
		go func() { waited <- l.WaitConsumed(t.Context(), "health", second) }()
		pending := func(after string) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-waited:
				t.Fatalf("returned after %s: %v", after, err)
			default:
			}
		}
		pending("nothing")
		r.Next(t.Context())
		pending("the first was read")
		r.Next(t.Context())
		pending("the second was read")
		r.Ack(ID{second.Epoch, 1})
		pending("the first was acknowledged")
		r.Ack(second)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		third := appendN(t, l, 1).ID
		go func() { waited <- l.WaitConsumed(t.Context(), "health", third) }()
		r.Next(t.Context())
		pending("the third was read")
		go r.Next(t.Context()) // asking for more says that it was handled
		if err := <-waited; err != nil {
			t.Error(err)
		}
		go func() { waited <- l.WaitConsumed(t.Context(), "health", ID{third.Epoch, 9}) }()
		pending("nothing")
		r.Close()
		if err := <-waited; !errors.Is(err, api.NotFound) {
			t.Errorf("after its consumer was closed: %v", err)
		}
	})
}

func TestAppendRefuses(t *testing.T) {
	l := openLog(t, "", Options{})
	if _, err := l.Append(t.Context(), TypeState, "", "", func() {}); err == nil {
		t.Error("took a func as data")
	}
	if _, err := l.Append(t.Context(), TypeState, "", "", strings.Repeat("x", maxRecord)); err == nil {
		t.Error("took an event over the bound")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Append(ctx, TypeState, "", "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if e := appendN(t, l, 1); e.ID.Seq != 1 {
		t.Errorf("a refused append took a number: %s", e.ID)
	}
}

func TestParseID(t *testing.T) {
	for _, s := range []string{"", "-", "a", "a-", "-1", "a-01", "a-+1", "A-1", "a b-1", "a-1 ", "a-18446744073709551616", "a-1-2", strings.Repeat("a", 33) + "-1"} {
		if id, err := ParseID(s); !errors.Is(err, ErrID) {
			t.Errorf("%q: %v, %v", s, id, err)
		}
	}
	for _, s := range []string{"a-0", "k3v9x2mp-42", "0-18446744073709551615"} {
		if id, err := ParseID(s); err != nil || id.String() != s {
			t.Errorf("%q: %v, %v", s, id, err)
		}
	}
	b, err := json.Marshal(Event{ID: ID{"a", 1}})
	if err != nil || !strings.Contains(string(b), `"id":"a-1"`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := newMemory().openAppend("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("memory: %v", err)
	}
}
