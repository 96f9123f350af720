package protocol

import (
	"bytes"
	"io"
	"testing"

	"pgregory.net/rapid"
)

func genFrame(t *rapid.T) Frame {
	return Frame{
		Type:    Type(rapid.Byte().Draw(t, "type")),
		Stream:  rapid.Uint32().Draw(t, "stream"),
		Session: rapid.Uint64().Draw(t, "session"),
		// Runs of zeros and of anything else, around the length of a full block.
		Payload: bytes.Join(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) []byte {
			return bytes.Repeat([]byte{rapid.SampledFrom([]byte{0, 1, 255, 'h'}).Draw(t, "byte")}, rapid.IntRange(0, 260).Draw(t, "run"))
		}), 0, 6).Draw(t, "payload"), nil),
	}
}

func equal(a, b Frame) bool {
	return a.Type == b.Type && a.Stream == b.Stream && a.Session == b.Session && bytes.Equal(a.Payload, b.Payload)
}

func TestFramesComeBackFromWhateverIsAroundThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var port []byte
		frames := rapid.SliceOfN(rapid.Custom(genFrame), 1, 4).Draw(t, "frames")
		for _, f := range frames {
			if rapid.Bool().Draw(t, "cut off before") { // a writer that died in the middle
				cut := AppendFrame(nil, genFrame(t))
				port = append(port, cut[:rapid.IntRange(0, len(cut)-2).Draw(t, "cut")]...)
			}
			port = append(port, rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 40).Draw(t, "garbage")...)
			port = AppendFrame(port, f)
		}
		r := NewReader(bytes.NewReader(port))
		for i, want := range frames {
			got, err := r.Next()
			if err != nil || !equal(got, want) {
				t.Fatalf("frame %d: got %+v, %v, want %+v", i, got, err, want)
			}
		}
		if f, err := r.Next(); err != io.EOF {
			t.Fatalf("after the last frame: %+v, %v", f, err)
		}
	})
}

func TestOnlyTheEndsOfAFrameAreZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := AppendFrame(nil, genFrame(t))
		if b[0] != 0 || b[len(b)-1] != 0 || bytes.IndexByte(b[1:len(b)-1], 0) >= 0 {
			t.Fatalf("zeros inside: %x", b)
		}
	})
}

func TestAFlippedBitIsNoFrame(t *testing.T) {
	whole := AppendFrame(nil, Frame{Type: TypeRequest, Session: 7, Payload: []byte(`{"id":1}`)})
	for i := 1; i < len(whole)-1; i++ {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			if f, err := NewReader(bytes.NewReader(b)).Next(); err == nil {
				t.Fatalf("byte %d, bit %d: understood as %+v", i, bit, f)
			}
		}
	}
}

func TestAFrameThatIsTooLongIsSkipped(t *testing.T) {
	long := AppendFrame(nil, Frame{Type: TypeData, Payload: bytes.Repeat([]byte{1}, MaxPayload+1)})
	flood := bytes.Repeat([]byte{9}, 3*maxEncoded)
	fits := Frame{Type: TypeData, Session: 1, Payload: bytes.Repeat([]byte{2}, MaxPayload)}
	port := AppendFrame(append(long, flood...), fits)
	r := NewReader(bytes.NewReader(port))
	got, err := r.Next()
	if err != nil || !equal(got, fits) {
		t.Fatalf("got a frame of %d bytes, %v", len(got.Payload), err)
	}
	if r.Skipped() != 2 {
		t.Errorf("skipped %d stretches, want 2", r.Skipped())
	}
}

// Both ends decode with the same Reader; what they make of the messages is fuzzed where they are.
func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendFrame(nil, Frame{Type: TypeHello, Session: 1, Payload: []byte(`{"version":1}`)}))
	f.Add(AppendFrame(AppendFrame(nil, Frame{Type: TypeData, Stream: 5, Session: 1}), Frame{Type: TypeCredit, Payload: []byte{0, 0, 1, 0}})[3:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for {
			got, err := r.Next()
			if err != nil {
				break
			}
			again, err := NewReader(bytes.NewReader(AppendFrame(nil, got))).Next()
			if err != nil || !equal(again, got) {
				t.Fatalf("%+v comes back as %+v, %v", got, again, err)
			}
		}
		// Whatever it was, the next frame is understood: a HELLO at any time.
		hello := Frame{Type: TypeHello, Session: 99, Payload: []byte("x")}
		r = NewReader(bytes.NewReader(AppendFrame(b, hello)))
		for {
			got, err := r.Next()
			if err != nil {
				t.Fatal("the HELLO after it was not recognised")
			}
			if equal(got, hello) {
				return
			}
		}
	})
}
