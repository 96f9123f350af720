package health

import (
	"encoding/json"
	"strconv"
	"time"
)

// A writer appends JSON to b, to the byte what encoding/json makes of a record.
type writer struct {
	b []byte

	day  int64 // since 1970, of the time that was written last
	date [len("2006-01-02")]byte

	said     words // of the result that was written last
	from, to int   // where they are in b
}

// name begins a field, or a list's element: it is followed by its value.
func (w *writer) name(n string) []byte {
	w.comma()
	w.b = append(append(append(w.b, '"'), n...), '"', ':')
	return w.b
}

func (w *writer) comma() {
	if last := w.b[len(w.b)-1]; last != '{' && last != '[' {
		w.b = append(w.b, ',')
	}
}

func (w *writer) int(n string, v int64)   { w.b = strconv.AppendInt(w.name(n), v, 10) }
func (w *writer) uint(n string, v uint64) { w.b = strconv.AppendUint(w.name(n), v, 10) }
func (w *writer) string(n, v string)      { w.b = appendString(w.name(n), v) }

// words writes a string that is left out when it is empty; span, time and given do so with zero.
func (w *writer) words(n, v string) {
	if v != "" {
		w.string(n, v)
	}
}

func (w *writer) span(n string, d time.Duration) {
	if d != 0 {
		w.int(n, int64(d))
	}
}

func (w *writer) given(n string, v bool) {
	if v {
		w.b = append(w.name(n), "true"...)
	}
}

func (w *writer) time(n string, t time.Time) {
	if !t.IsZero() {
		w.b = append(t.AppendFormat(append(w.name(n), '"'), time.RFC3339Nano), '"')
	}
}

func (w *writer) list(n int, element func(i int)) {
	w.b = append(w.b, '[')
	for i := range n {
		w.comma()
		w.b = append(w.b, '{')
		element(i)
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, ']')
}

// result writes the WindowResult that listResults makes of it, but for its braces.
func (w *writer) result(r *packedResult) {
	w.moment(r.start)
	w.b = strconv.AppendInt(append(w.b, `,"duration":`...), int64(r.duration), 10)
	w.again(r.said, func(said said) {
		w.string("outcome", string(outcomes[said.outcome]))
		w.words("reason", said.reason)
		w.words("output", said.output)
		w.words("cause", said.cause)
		w.given("definite", said.definite)
	})
	w.b = strconv.AppendUint(append(w.b, `,"window":`...), r.window, 10)
}

// transition writes the Transition that listTransitions makes of it, but for its braces.
func (w *writer) transition(t *packedTransition) {
	w.moment(t.time)
	w.string("from", string(statuses[t.from]))
	w.string("to", string(statuses[t.to]))
	said := t.said.Value()
	w.words("reason", said.reason)
	w.words("output", said.output)
	if t.lost {
		w.b = append(w.name("persisted"), "false"...)
	}
	if t.window != 0 {
		w.uint("window", t.window)
	}
	if t.n != 0 {
		w.uint("n", t.n)
	}
	w.words("stale", stales[t.stale])
}

// again writes what was found, which most often is what was found before, too: then it is there.
func (w *writer) again(s words, write func(said)) {
	if s == w.said {
		w.b = append(w.b, w.b[w.from:w.to]...)
		return
	}
	w.said, w.from = s, len(w.b)
	write(s.Value())
	w.to = len(w.b)
}

// moment writes the time of a list's element, its first field: UTC, from Unix nanoseconds. Most are of the same day.
func (w *writer) moment(nanoseconds int64) {
	const perDay = int64(24 * time.Hour)
	day, rest := nanoseconds/perDay, nanoseconds%perDay
	if rest < 0 {
		day, rest = day-1, rest+perDay
	}
	if day != w.day || w.date[0] == 0 {
		w.day = day
		time.Unix(day*int64(24*time.Hour/time.Second), 0).UTC().AppendFormat(w.date[:0], time.DateOnly)
	}
	second, part := uint32(rest/int64(time.Second)), uint32(rest%int64(time.Second))
	text := [len("T00:00:00.000000000")]byte{0: 'T', 3: ':', 6: ':', 9: '.'}
	twoDigits(text[1:], second/3600)
	twoDigits(text[4:], second/60%60)
	twoDigits(text[7:], second%60)
	end := len("T00:00:00")
	if part != 0 {
		for i := len(text) - 1; i > end; i-- {
			text[i] = byte('0' + part%10)
			part /= 10
		}
		for end = len(text); text[end-1] == '0'; end-- {
		}
	}
	b := append(append(w.b, `"time":"`...), w.date[:]...)
	w.b = append(append(b, text[:end]...), 'Z', '"')
}

func twoDigits(b []byte, v uint32) { b[0], b[1] = byte('0'+v/10), byte('0'+v%10) }

// appendString writes what needs no escape as it is, and leaves the rest to encoding/json.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string can be written
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
