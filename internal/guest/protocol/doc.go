// Package protocol is the language of the agent channel between a machine's guest agent and its host: frames on
// virtio-serial ports, and the messages in them.
//
// A virtio-serial port is a byte pipe without sessions. A host that goes away and comes back is invisible to the guest,
// what the old one wrote is still delivered, and a writer may have been cut off in the middle of anything. So a frame is
//
//	0x00, COBS(header, payload, checksum), 0x00
//
// where COBS (consistent overhead byte stuffing) leaves no zero inside: a zero always ends what was before, whatever it
// was, and a whole frame after garbage is always understood, without guesses about lengths that may be garbage
// themselves. The header is, big-endian,
//
//	2 bytes  magic "hg"
//	1 byte   type
//	1 byte   0
//	4 bytes  stream, of bulk frames
//	8 bytes  session, drawn by the host at each Hello
//
// and the checksum is CRC-32C over header and payload. Control payloads are JSON, bulk payloads raw bytes. What does not
// fit (another magic, a wrong checksum, too long, an unknown type) is skipped by the reader; only the port's own errors
// are errors.
//
// A [Reader] belongs to one goroutine, a [Writer] to any number. The package does not know what a machine is made of,
// who is on which end, or any port's file.
package protocol
