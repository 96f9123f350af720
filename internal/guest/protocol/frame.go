package protocol

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
)

// A Type says what a frame's payload is.
type Type uint8

// The types. Their direction is host to guest, guest to host, or both for what streams carry.
const (
	TypeHello      Type = 1  // → Hello
	TypeWelcome    Type = 2  // ← Welcome
	TypeClock      Type = 3  // → Clock
	TypeRequest    Type = 4  // → Request
	TypeReply      Type = 5  // ← Reply
	TypeState      Type = 6  // ← State
	TypeEndAck     Type = 7  // → nothing: the host has taken note of the end
	TypeExecExited Type = 8  // ← ExecExited
	TypeOver       Type = 9  // ← nothing: a port failed on the guest's side, and the session with it
	TypeWatch      Type = 10 // → Watch
	TypeListening  Type = 11 // ← Listening

	TypeData   Type = 16 // bytes of a stream; no bytes: its end
	TypeCredit Type = 17 // 4 bytes: so many more may be sent
)

// A Frame is one unit of a port.
type Frame struct {
	Type    Type
	Stream  uint32 // see StreamID; 0 on the control port
	Session uint64
	Payload []byte
}

// The streams of an exec.
const (
	Stdin = iota
	Stdout
	Stderr
)

// MaxExecID is the highest number of an exec; its streams' ids fit 32 bits.
const MaxExecID = math.MaxUint32 >> 2

// StreamID is the id on the bulk port of a stream (Stdin, Stdout, Stderr) of an exec.
func StreamID(exec uint32, which int) uint32 { return exec<<2 | uint32(which) }

const (
	headerSize   = 16
	checksumSize = 4
	// maxEncoded is the longest frame without its zeros.
	maxEncoded = (headerSize+MaxPayload+checksumSize)*255/254 + 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendFrame appends the encoded frame. The payload must not be longer than MaxPayload.
func AppendFrame(dst []byte, f Frame) []byte {
	var h [headerSize]byte
	h[0], h[1], h[2] = 'h', 'g', byte(f.Type)
	binary.BigEndian.PutUint32(h[4:], f.Stream)
	binary.BigEndian.PutUint64(h[8:], f.Session)
	var sum [checksumSize]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Update(crc32.Checksum(h[:], castagnoli), castagnoli, f.Payload))
	dst = append(dst, 0)
	dst = appendStuffed(dst, h[:], f.Payload, sum[:])
	return append(dst, 0)
}

// parseFrame reads what was between two zeros, in place. The payload is part of b.
func parseFrame(b []byte) (Frame, bool) {
	b, ok := unstuff(b)
	if !ok || len(b) < headerSize+checksumSize || b[0] != 'h' || b[1] != 'g' || b[3] != 0 {
		return Frame{}, false
	}
	body, sum := b[:len(b)-checksumSize], b[len(b)-checksumSize:]
	if len(body)-headerSize > MaxPayload || crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(sum) {
		return Frame{}, false
	}
	return Frame{
		Type:    Type(b[2]),
		Stream:  binary.BigEndian.Uint32(b[4:]),
		Session: binary.BigEndian.Uint64(b[8:]),
		Payload: body[headerSize:],
	}, true
}

// JSON makes a control frame of a message.
func JSON(t Type, session uint64, message any) (Frame, error) {
	b, err := json.Marshal(message)
	if err != nil {
		return Frame{}, err
	}
	if len(b) > MaxPayload {
		return Frame{}, fmt.Errorf("a message of %d bytes: at most %d fit", len(b), MaxPayload)
	}
	return Frame{Type: t, Session: session, Payload: b}, nil
}
