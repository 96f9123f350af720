// Package protocol is what the daemon and the shim beside a machine say to each other over a Unix socket.
//
// A connection carries frames: a length of four bytes (big-endian, of what follows), one byte of Kind, and a payload,
// JSON or raw bytes as the Kind says. The client speaks first with a Hello that names the versions it knows, its
// secret and what the connection is for; the shim answers with a Welcome. Then:
//
//   - a control connection carries any number of Requests, each answered by one Reply with its id in any order,
//     Cancels of requests, and Notices from the shim, which begin with those that have already happened. From version 2 on
//     there are notices that are lines for a log (machine.Told), and from version 3 on hints (machine.Hinted); each goes to one
//     connection only. From version 3 on a probe's Reply may have a Begun before it;
//   - an exec connection is one program in the guest: stdin one way, stdout and stderr the other, control messages
//     (resize, signal) one way, and at last one Exit. From version 2 on the shim grants credit for stdin, and no more than
//     that is sent: input that the program does not read holds up neither a control message nor the client's end.
//
// Compatibility: an older shim serves a newer daemon. Fields and methods are only ever added; an unknown method is
// answered with an error of kind "unimplemented", an unknown field ignored, and a Kind that is not known ends the connection.
package protocol

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// A Kind says what a frame holds.
type Kind byte

// The kinds. The numbers are part of the protocol.
const (
	KindHello   Kind = 1  // client: Hello
	KindWelcome Kind = 2  // shim: Welcome
	KindRequest Kind = 3  // client: Request
	KindReply   Kind = 4  // shim: Reply
	KindCancel  Kind = 5  // client: Cancel
	KindNotice  Kind = 6  // shim: machine.Notice
	KindStdin   Kind = 7  // client: bytes; an empty one is the end
	KindStdout  Kind = 8  // shim: bytes
	KindStderr  Kind = 9  // shim: bytes
	KindControl Kind = 10 // client: ExecControl
	KindExit    Kind = 11 // shim: ExecEnd
	KindCredit  Kind = 12 // shim, from version 2: ExecCredit
	KindBegun   Kind = 13 // shim, from version 3: Begun
)

// MaxPayload bounds one frame's payload.
const MaxPayload = 1 << 20

// MaxChunk is the size of the chunks in which streams are sent.
const MaxChunk = 32 << 10

const headerLen = 5

// A FrameError is a peer that does not speak this protocol.
type FrameError string

func (e FrameError) Error() string { return "shim protocol: " + string(e) }

// Write sends one frame in one write.
func Write(w io.Writer, k Kind, payload []byte) error {
	frame, err := End(append(Begin(make([]byte, 0, headerLen+len(payload)), k), payload...))
	if err == nil {
		_, err = w.Write(frame)
	}
	return err
}

// Begin makes the beginning of a frame in b, whose room is used again. Its payload is to be appended; End then makes it whole.
func Begin(b []byte, k Kind) []byte { return append(b[:0], 0, 0, 0, 0, byte(k)) }

// End makes a frame whole: with one write it is sent.
func End(frame []byte) ([]byte, error) {
	n := len(frame) - headerLen
	if n > MaxPayload {
		return nil, FrameError(fmt.Sprintf("a payload of %d bytes is over the bound of %d", n, MaxPayload))
	}
	binary.BigEndian.PutUint32(frame, uint32(1+n))
	return frame, nil
}

// WriteJSON sends v as one frame.
func WriteJSON(w io.Writer, k Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("shim protocol: encode: %w", err)
	}
	return Write(w, k, b)
}

// Read reads one frame. io.EOF means that the peer closed the connection between two frames.
func Read(r io.Reader) (Kind, []byte, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n, err := payloadOf(h[:])
	if err != nil {
		return 0, nil, err
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(h[4]), payload, nil
}

// payloadOf is how many bytes come after a header.
func payloadOf(h []byte) (int, error) {
	n := binary.BigEndian.Uint32(h)
	if n < 1 || n-1 > MaxPayload {
		return 0, FrameError(fmt.Sprintf("a frame of %d bytes is out of bounds", n))
	}
	return int(n - 1), nil
}

// A Reader reads frames out of a buffer: where one fits into it, nothing is made for it.
type Reader struct {
	r    *bufio.Reader
	last int // what the frame that was read last takes of the buffer
}

// NewReader returns a Reader whose buffer has size bytes.
func NewReader(r io.Reader, size int) *Reader { return &Reader{r: bufio.NewReaderSize(r, size)} }

// Next reads one frame, as Read does. The payload is valid until the next call.
func (r *Reader) Next() (Kind, []byte, error) {
	r.r.Discard(r.last) // it is in the buffer
	r.last = 0
	h, err := r.r.Peek(headerLen)
	if err != nil {
		if err == io.EOF && len(h) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	n, err := payloadOf(h)
	if err != nil {
		return 0, nil, err
	}
	if headerLen+n > r.r.Size() {
		return Read(r.r)
	}
	frame, err := r.r.Peek(headerLen + n)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	r.last = len(frame)
	return Kind(frame[4]), frame[headerLen:], nil
}

// Expect reads one frame of kind k into v.
func Expect(r io.Reader, k Kind, v any) error {
	got, payload, err := Read(r)
	if err != nil {
		return err
	}
	if got != k {
		return FrameError(fmt.Sprintf("kind %d where %d was expected", got, k))
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return FrameError(fmt.Sprintf("kind %d: %v", k, err))
	}
	return nil
}
