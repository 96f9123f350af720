package protocol

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/halevm/hale/api"
)

func TestFramesComeBack(t *testing.T) {
	var b bytes.Buffer
	for _, payload := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("y"), MaxPayload)} {
		if err := Write(&b, KindStdout, payload); err != nil {
			t.Fatal(err)
		}
		kind, got, err := Read(&b)
		if err != nil || kind != KindStdout || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes came back as kind %d, %d bytes, %v", len(payload), kind, len(got), err)
		}
	}
	if err := Write(&b, KindStdout, make([]byte, MaxPayload+1)); err == nil || b.Len() > 0 {
		t.Errorf("an oversized payload: %v, %d bytes written", err, b.Len())
	}
}

func TestReadRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no kind":    "\x00\x00\x00\x00\x01",
		"oversized":  "\xff\xff\xff\xff\x01",
		"cut header": "\x00\x00",
		"cut body":   "\x00\x00\x00\x05\x01ab",
	} {
		if _, _, err := Read(bytes.NewReader([]byte(in))); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Read(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("the end between two frames: %v", err)
	}
}

// A Reader gives what Read does, of whatever length, and whatever it takes to come.
func TestReader(t *testing.T) {
	var b bytes.Buffer
	lengths := []int{0, 1, 10, 11, 12, 200, MaxPayload, 3}
	for i, n := range lengths {
		if err := Write(&b, Kind(i), bytes.Repeat([]byte{byte(i)}, n)); err != nil {
			t.Fatal(err)
		}
	}
	for name, from := range map[string]io.Reader{"at once": bytes.NewReader(b.Bytes()), "bit by bit": iotest.OneByteReader(bytes.NewReader(b.Bytes()))} {
		r := NewReader(from, 16)
		for i, n := range lengths {
			if kind, got, err := r.Next(); err != nil || kind != Kind(i) || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, n)) {
				t.Errorf("%s: frame %d of %d bytes came back as kind %d, %d bytes, %v", name, i, n, kind, len(got), err)
			}
		}
		if _, _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: the end: %v", name, err)
		}
	}
	for name, in := range map[string]string{
		"no kind": "\x00\x00\x00\x00\x01", "oversized": "\xff\xff\xff\xff\x01", "cut header": "\x00\x00", "cut body": "\x00\x00\x00\x05\x01ab",
	} {
		if _, _, err := NewReader(bytes.NewReader([]byte(in)), 64).Next(); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	sent := ErrorOf(&api.Error{Kind: api.Conflict, Code: "port_in_use", Message: "port 80 is in use"})
	if !errors.Is(sent, api.Conflict) || sent.Error() != "port 80 is in use" {
		t.Errorf("got %v of kind %v", sent, sent.Kind)
	}
	if sent := ErrorOf(io.ErrUnexpectedEOF); !errors.Is(sent, api.Internal) {
		t.Errorf("an error of no kind is %v", sent.Kind)
	}
	if ErrorOf(nil) != nil {
		t.Error("no error became one")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03\x01{}"))
	f.Add([]byte("\x00\x00\x00\x01\x07"))
	f.Add([]byte("\xff\xff\xff\xff\x07"))
	f.Fuzz(func(t *testing.T, in []byte) {
		kind, payload, err := Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := Write(&out, kind, payload); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Errorf("%x was read from %x", out.Bytes(), in)
		}
		if again, same, err := NewReader(bytes.NewReader(in), 16).Next(); err != nil || again != kind || !bytes.Equal(same, payload) {
			t.Errorf("a Reader reads kind %d, %q, %v, not kind %d, %q", again, same, err, kind, payload)
		}
	})
}
