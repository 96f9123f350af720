package event

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Whatever the disk does, a reader sees what was acknowledged, in order and whole, or is told to list again.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newFaulty()
		o := Options{MaxEvents: rapid.SampledFrom([]int{16, 80, 4000}).Draw(t, "MaxEvents")}
		open := func() *Log {
			l, err := openFiles(d, o)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		defer func() { l.Close() }()
		// One or the other: behind an end that was lost, a segment whose name may be there is one that follows a gap.
		torn := rapid.Bool().Draw(t, "torn")
		var acked []Event         // what Append confirmed, all in order
		seen := map[ID]bool{}     // every ID that was ever given out
		lost := map[ID]bool{}     // those that a torn tail took away
		place := l.Last()         // where the reader stands
		r := l.Follow(place, "r") // one that lives as long as the log is open
		reopen := func() {
			l = open()
			r = l.Follow(place, "r")
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					e, err := l.Append(t.Context(), TypeState, "i", "n", StateChange{From: "a"})
					if err != nil {
						if d.fault == nil {
							t.Fatal(err)
						}
						return
					}
					if seen[e.ID] {
						t.Fatalf("%s was given out twice", e.ID)
					}
					seen[e.ID] = true
					acked = append(acked, e)
				}
			},
			"trouble": func(t *rapid.T) {
				f := fault{
					room:     rapid.IntRange(0, 400).Draw(t, "room"),
					noSync:   rapid.Bool().Draw(t, "noSync"),
					noCreate: rapid.Bool().Draw(t, "noCreate"),
				}
				// A disk that takes a record, does not confirm it and does not give it back leaves open whether it is in the log
				// after a restart; so Append says.
				f.noTruncate = !f.noSync && rapid.Bool().Draw(t, "noTruncate")
				f.noRename = !torn && rapid.Bool().Draw(t, "noRename")
				d.set(&f)
			},
			"better": func(t *rapid.T) { d.set(nil) },
			"restart": func(t *rapid.T) {
				l.Close()
				reopen()
			},
			"torn": func(t *rapid.T) { // the disk loses the end of what it had said to hold
				if len(acked) == 0 || !torn {
					t.Skip("nothing to lose")
				}
				l.Close()
				cur := l.kept[len(l.kept)-1]
				if cur.count == 0 || d.fault != nil {
					reopen()
					return
				}
				b := d.files[cur.name]
				b.Truncate(int(cur.size)) // what an aborted write may have left
				last := acked[len(acked)-1]
				b.Truncate(b.Len() - rapid.IntRange(1, 9).Draw(t, "bytes"))
				acked = acked[:len(acked)-1]
				lost[last.ID] = true
				reopen()
			},
			"read": func(t *rapid.T) {
				for l.Last() != place {
					e, err := r.Next(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if e.Type == TypeResync {
						if e.ID != l.Last() {
							t.Fatalf("resync to %s, not to the end %s", e.ID, l.Last())
						}
						place = e.ID
						continue
					}
					at := index(acked, place)
					if at < 0 && lost[place] {
						t.Fatalf("went on with %s behind %s, which is lost", e.ID, place)
					}
					if at+1 >= len(acked) || acked[at+1].ID != e.ID || !bytes.Equal(acked[at+1].Data, e.Data) {
						t.Fatalf("%s behind %s", e.ID, place)
					}
					place = e.ID
				}
			},
			"": func(t *rapid.T) {
				if len(acked) > 0 && l.Last() != acked[len(acked)-1].ID {
					t.Fatalf("last is %s, want %s", l.Last(), acked[len(acked)-1].ID)
				}
			},
		})
	})
}

func index(events []Event, id ID) int {
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].ID == id {
			return i
		}
	}
	return -1
}

// Whatever is found in a segment's file, the log opens, takes an event, and finds it again.
func FuzzOpen(f *testing.F) {
	whole := encodeHeader(ID{"abc", 1})
	for seq := range uint64(3) {
		whole, _ = encodeRecord(whole, Event{ID: ID{"abc", seq + 1}, Type: TypeState, Instance: "i"})
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newFaulty()
		d.files[segmentName(1)] = bytes.NewBuffer(data)
		l, err := openFiles(d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := l.Append(t.Context(), TypeDeleted, "x", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		l, err = openFiles(d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if l.Last() != e.ID {
			t.Fatalf("last is %s, want %s", l.Last(), e.ID)
		}
	})
}
