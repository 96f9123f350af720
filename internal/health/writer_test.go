package health

import (
	"encoding/json"
	"testing"
	"unique"
)

// A string is what encoding/json makes of it; what needs no escape is not shown to that.
func TestAppendString(t *testing.T) {
	var plain []byte
	for c := range rune(0x2100) {
		s := string(c)
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendString(nil, s)); got != string(want) {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
		if c < 0x7f && string(want) == `"`+s+`"` {
			plain = append(plain, byte(c))
		}
	}
	if len(plain) != 0x7f-0x20-5 {
		t.Errorf("plain are %q", plain)
	}
	s, room := string(plain), make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { room = appendString(room[:0], s) }); n != 0 {
		t.Errorf("%v allocations for what is plain", n)
	}
}

// Words that are there already are copied, and others are not taken for them.
func TestWordsAgain(t *testing.T) {
	one, other := unique.Make(said{reason: "one"}), unique.Make(said{reason: "other"})
	w := writer{b: []byte(`{"before":1`)}
	made := 0
	for _, s := range []words{one, one, one, other, other, one} {
		w.again(s, func(s said) {
			made++
			w.words(s.reason, "words")
		})
	}
	const want = `{"before":1,"one":"words","one":"words","one":"words","other":"words","other":"words","one":"words"`
	if string(w.b) != want || made != 3 {
		t.Errorf("made %d times: %s", made, w.b)
	}
}
